"""The cheapest way that fits, and what is said where none does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from study.fitting import MOST_SHARING, place, sharded
from study.placement import (
    CUDA_BYTES,
    GIB,
    HOST_BYTES,
    USABLE,
    Devices,
    Infeasible,
    Placement,
    as_told,
    smaller,
)
from trainables.footprint import Footprint

BATCH = 32


def needs(
    *, weights: float, trained: float, activations: float
) -> Callable[[int, int, bool], Footprint]:
    """GiB of a trial; activations are of one question, a quarter if layers are computed twice."""

    def predict(questions: int, pieces: int, twice: bool = False) -> Footprint:
        return Footprint(
            weights=int(weights * GIB),
            trained=int(trained * GIB),
            gradients=int(trained * GIB) if pieces > 1 else 0,
            optimizer=int(2 * trained * GIB),
            activations={"decoder": int(activations * questions / (4 if twice else 1) * GIB)},
            features={},
            batch=0,
            workspace=0,
            layer=0,
            evaluating=False,
        )

    return predict


def placed(devices: Devices, correction: float = 1.0, **gib: float) -> Placement:
    found = place(needs(**gib), BATCH, devices, correction)
    assert isinstance(found, Placement)
    assert found.micro_batch * found.pieces * found.devices == BATCH, "the batch is the same"
    assert found.peak <= devices.usable
    return found


def test_small_trials_share_a_device() -> None:
    found = placed(Devices(count=1, gib=24), weights=1.5, trained=0.01, activations=0.05)
    own = 0.03 + 32 * 0.05
    assert found.lane == "shared" and found.deepspeed == "off"
    assert found.sharing == min(int(((24 - 1) * USABLE - 1.5) // own), MOST_SHARING) > 1
    assert found.reason == f"1.5 GiB of weights once and 1.6 GiB for each of {found.sharing}"


def test_one_that_needs_more_than_half_has_a_device_to_itself() -> None:
    found = placed(Devices(count=4, gib=24), weights=1.5, trained=0.01, activations=0.5)
    assert (found.lane, found.devices, found.sharing, found.pieces) == ("solo", 1, 1, 1)


def test_a_batch_that_is_too_large_is_cut_into_pieces() -> None:
    found = placed(Devices(count=4, gib=24), weights=1.5, trained=0.01, activations=1)
    assert (found.lane, found.pieces, found.micro_batch) == ("solo", 2, 16)
    assert found.reason == (
        "a whole batch would take 33.5 GiB of 21.2 GiB; 2 pieces of 16 take 17.5 GiB"
    )


def test_layers_are_computed_twice_before_other_devices_are_taken() -> None:
    found = placed(Devices(count=4, gib=24), weights=1.5, trained=0.01, activations=30)
    assert (found.lane, found.checkpointing, found.micro_batch) == ("solo", True, 2)
    assert "with layers computed twice" in found.reason


def test_what_was_measured_corrects_what_is_predicted() -> None:
    devices = Devices(count=4, gib=24)
    gib = {"weights": 1.5, "trained": 0.01, "activations": 0.5}
    assert placed(devices, **gib).pieces == 1
    corrected = placed(devices, 1.3, **gib)
    assert corrected.pieces == 2 and corrected.peak > placed(devices, **gib).peak * 0.6


def test_after_an_out_of_memory_half_as_many_questions_are_computed_at_once() -> None:
    told, seen = as_told(devices=2, deepspeed="2", batch_size=12, sharing=1, reason=""), []
    found: Placement | None = told
    while found is not None:
        seen.append((found.micro_batch, found.pieces, found.checkpointing))
        assert (found.micro_batch - 1) * found.pieces < 6 <= found.micro_batch * found.pieces
        found = smaller(found)
    assert seen == [(6, 1, False), (3, 2, False), (2, 3, False), (1, 6, False), (1, 6, True)]


def test_what_is_trained_is_shared_among_devices_before_weights_are() -> None:
    found = placed(Devices(count=8, gib=24), weights=2, trained=7, activations=0.1)
    assert (found.lane, found.deepspeed) == ("gang", "2")
    assert found.devices == 4, "no more than it takes"
    alone = sharded(needs(weights=2, trained=7, activations=0.1)(1, 1), "2", 1)
    assert found.peak < alone.device


def test_weights_are_shared_where_they_do_not_fit() -> None:
    found = placed(Devices(count=8, gib=16), weights=28, trained=0.1, activations=0.1)
    assert (found.lane, found.deepspeed) == ("gang", "3")
    assert found.devices == 4, "no more than it takes"


def test_workers_share_a_batch_evenly() -> None:
    found = placed(Devices(count=3, gib=24), weights=28, trained=0.1, activations=0.1)
    assert found.devices == 2


@pytest.mark.parametrize(
    ("gib", "said"),
    [
        ({"weights": 60, "trained": 0.1, "activations": 0.1}, "bf16 weights"),
        ({"weights": 2, "trained": 60, "activations": 0.1}, "a recipe that trains less"),
        ({"weights": 2, "trained": 0.1, "activations": 60}, "leaves the first slots frozen"),
    ],
)
def test_what_fits_nowhere_is_told_what_would_do(gib: dict[str, float], said: str) -> None:
    found = place(needs(**gib), BATCH, Devices(count=2, gib=16))
    assert isinstance(found, Infeasible)
    assert said in found.reason
    large = Devices(count=2, gib=(found.least / USABLE + CUDA_BYTES) / GIB + 1)
    assert isinstance(place(needs(**gib), BATCH, large), Placement), "what is said is true"


def test_no_device_at_all() -> None:
    assert Devices(count=1, gib=0.5).usable == 0


HOST = Devices(count=1, gib=24, host_gib=80)


def test_the_optimizer_goes_to_the_host_where_there_is_no_other_device() -> None:
    gib = {"weights": 2.0, "trained": 7.0, "activations": 0.1}
    assert isinstance(place(needs(**gib), BATCH, Devices(count=1, gib=24)), Infeasible)
    found = placed(HOST, **gib)
    assert (found.lane, found.devices, found.deepspeed) == ("solo", 1, "2-offload")
    assert found.engine == "ZeRO-2 with offload"
    optimizer_gib, master_gib, gradients_gib = 14, 7, 7
    assert found.host >= (optimizer_gib + master_gib + gradients_gib) * GIB
    assert "of the host's memory beside it" in found.reason
    assert placed(Devices(count=4, gib=24, host_gib=80), **gib).deepspeed == "2", (
        "other devices are faster"
    )


def test_the_weights_go_to_the_host_where_they_do_not_fit() -> None:
    found = placed(HOST, weights=28, trained=0.1, activations=0.1)
    assert (found.devices, found.deepspeed) == (1, "3-offload")
    assert found.host > 2 * 28 * GIB, "the base, and what ZeRO-3 makes of it"


def test_what_the_host_lacks_is_not_offloaded() -> None:
    small = Devices(count=1, gib=24, host_gib=16)
    assert small.usable_host == int((16 * GIB - HOST_BYTES) * USABLE)
    gib = {"weights": 2.0, "trained": 7.0, "activations": 0.1}
    found = place(needs(**gib), BATCH, small)
    assert isinstance(found, Infeasible) and found.least > small.usable
