"""The cheapest way that fits, and what is said where none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from study.config.deployment import MOST_SHARING
from study.planning.device_fit import place, place_untuned
from study.planning.placement import (
    CUDA_BYTES,
    GIB,
    HOST_BYTES,
    USABLE,
    DeviceMemory,
    Infeasible,
    Placement,
    halved,
    uniform_placement,
)
from study.planning.zero_memory import sharded
from trainables.memory.footprint import Footprint

BATCH = 32


def needs(
    *, weights: float, trained: float, activations: float
) -> Callable[[int, int, bool], Footprint]:
    """GiB of a trial; activations are of one question, a quarter if layers are computed twice."""

    def predict(questions: int, pieces: int, twice: bool = False) -> Footprint:
        kept = int(activations * questions / (4 if twice else 1) * GIB)
        gradients = int(trained * GIB) if pieces > 1 else 0
        return Footprint(
            weights=int(weights * GIB),
            trained=int(trained * GIB),
            gradients=gradients,
            optimizer=int(2 * trained * GIB),
            activations={"decoder": kept},
            features={},
            batch=0,
            workspace=0,
            layer=0,
            copied=0,
            pieces=min(pieces, 2),
            passes=gradients + kept,
            passes_alone=kept,
            evaluating=False,
        )

    return predict


def answering(*, weights: float, each: float) -> Callable[[int], Footprint]:
    """GiB of the base as it is; ``each`` is of one question."""

    def answer(questions: int) -> Footprint:
        of_one = needs(weights=weights, trained=0, activations=0)(1, 1)
        taken = int(each * questions * GIB)
        return replace(of_one, workspace=taken, passes=taken, passes_alone=taken, evaluating=True)

    return answer


def found_for(
    devices: DeviceMemory, correction: float = 1.0, answer: float = 0.0, **gib: float
) -> Placement | Infeasible:
    answers = answering(weights=gib["weights"], each=answer)
    return place(needs(**gib), answers, BATCH, devices, correction)


def placed(
    devices: DeviceMemory, correction: float = 1.0, answer: float = 0.0, **gib: float
) -> Placement:
    found = found_for(devices, correction, answer, **gib)
    assert isinstance(found, Placement)
    assert found.micro_batch * found.pieces * found.devices == BATCH, "the batch is the same"
    assert found.peak <= devices.usable
    return found


def test_small_trials_share_a_device() -> None:
    found = placed(DeviceMemory(count=1, gib=24), weights=1.5, trained=0.01, activations=0.05)
    own = 0.03 + 32 * 0.05
    assert found.lane == "shared" and found.deepspeed == "off"
    assert found.sharing == min(int(((24 - 1) * USABLE - 1.5) // own), MOST_SHARING) > 1
    assert found.reason == f"1.5 GiB of weights once and 1.6 GiB for each of {found.sharing}"


def test_one_that_needs_more_than_half_has_a_device_to_itself() -> None:
    found = placed(DeviceMemory(count=4, gib=24), weights=1.5, trained=0.01, activations=0.5)
    assert (found.lane, found.devices, found.sharing, found.pieces) == ("solo", 1, 1, 1)


def test_a_batch_that_is_too_large_is_cut_into_pieces() -> None:
    found = placed(DeviceMemory(count=4, gib=24), weights=1.5, trained=0.01, activations=1)
    assert (found.lane, found.pieces, found.micro_batch) == ("solo", 2, 16)
    assert found.reason == (
        "a whole batch would take 33.5 GiB of 21.2 GiB; 2 pieces of 16 take 17.5 GiB"
    )


def test_layers_are_computed_twice_before_other_devices_are_taken() -> None:
    found = placed(DeviceMemory(count=4, gib=24), weights=1.5, trained=0.01, activations=30)
    assert (found.lane, found.activation_checkpointing, found.micro_batch) == ("solo", True, 2)
    assert "with layers computed twice" in found.reason


def test_devices_share_batches_of_every_size_evenly() -> None:
    gib = {"weights": 40, "trained": 0.01, "activations": 0.05}
    devices = DeviceMemory(count=8, gib=24)
    answers, predict = answering(weights=40, each=0.0), needs(**gib)
    found = [place(predict, answers, BATCH, devices, other_sizes=s) for s in ((), (4, 32))]
    assert all(isinstance(where, Placement) for where in found)
    assert [where.devices for where in found if isinstance(where, Placement)] == [2, 2]
    lacking = place(predict, answers, BATCH, devices, other_sizes=(3,))
    assert isinstance(lacking, Infeasible), "no number of devices divides both 32 and 3"


def test_an_optimizer_of_undivided_parameters_has_no_zero() -> None:
    devices = DeviceMemory(count=2, gib=24, host_gib=64)
    answers, large = answering(weights=1.5, each=0.0), needs(weights=1.5, trained=7, activations=0)
    divided = place(large, answers, BATCH, devices)
    assert isinstance(divided, Placement) and divided.deepspeed != "off"
    assert isinstance(place(large, answers, BATCH, devices, undivided=True), Infeasible)
    small = needs(weights=1.5, trained=0.01, activations=0.05)
    found = place(small, answers, BATCH, devices, undivided=True)
    assert isinstance(found, Placement) and found.deepspeed == "off"


def test_what_was_measured_corrects_what_is_predicted() -> None:
    devices = DeviceMemory(count=4, gib=24)
    gib = {"weights": 1.5, "trained": 0.01, "activations": 0.5}
    assert placed(devices, **gib).pieces == 1
    corrected = placed(devices, 1.3, **gib)
    assert corrected.pieces == 2 and corrected.peak > placed(devices, **gib).peak * 0.6


def test_after_an_out_of_memory_of_a_small_batch_half_of_that_is_computed_at_once() -> None:
    told = uniform_placement(devices=2, deepspeed="2", batch_size=64, sharing=1, reason="")
    found = halved(told, share=4)
    assert found is not None and (found.micro_batch, found.pieces) == (2, 16)
    found = halved(told, share=1)
    assert found is not None and (found.activation_checkpointing, found.micro_batch) == (True, 32)


def test_after_an_out_of_memory_half_as_many_questions_are_computed_at_once() -> None:
    told, seen = (
        uniform_placement(devices=2, deepspeed="2", batch_size=12, sharing=1, reason=""),
        [],
    )
    found: Placement | None = told
    while found is not None:
        seen.append((found.micro_batch, found.pieces, found.activation_checkpointing))
        assert (found.micro_batch - 1) * found.pieces < 6 <= found.micro_batch * found.pieces
        found = halved(found)
    assert seen == [(6, 1, False), (3, 2, False), (2, 3, False), (1, 6, False), (1, 6, True)]


def test_what_is_trained_is_shared_among_devices_before_weights_are() -> None:
    found = placed(DeviceMemory(count=8, gib=24), weights=2, trained=7, activations=0.1)
    assert (found.lane, found.deepspeed) == ("gang", "2")
    assert found.devices == 4, "no more than it takes"
    alone = sharded(needs(weights=2, trained=7, activations=0.1)(1, 1), "2", 1)
    assert found.peak < alone.device


def test_weights_are_shared_where_they_do_not_fit() -> None:
    found = placed(DeviceMemory(count=8, gib=16), weights=28, trained=0.1, activations=0.1)
    assert (found.lane, found.deepspeed) == ("gang", "3")
    assert found.devices == 4, "no more than it takes"


def test_weights_in_four_bits_are_whole_on_each_device() -> None:
    gib = {"weights": 28, "trained": 0.1, "activations": 0.1}
    predict, answer = needs(**gib), answering(weights=28, each=0.1)
    for devices in (DeviceMemory(count=8, gib=16), HOST):
        for found in (
            place(predict, answer, BATCH, devices, divisible=False),
            place_untuned(answer, BATCH, devices, 1, divisible=False),
        ):
            assert isinstance(found, Infeasible)
            assert "more devices" not in found.reason and "devices of " in found.reason


def test_workers_share_a_batch_evenly() -> None:
    found = placed(DeviceMemory(count=3, gib=24), weights=28, trained=0.1, activations=0.1)
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
    found = found_for(DeviceMemory(count=2, gib=16), **gib)
    assert isinstance(found, Infeasible)
    assert said in found.reason
    large = DeviceMemory(count=2, gib=(found.least / USABLE + CUDA_BYTES) / GIB + 1)
    assert isinstance(found_for(large, **gib), Placement), "what is said is true"


def test_no_device_at_all() -> None:
    assert DeviceMemory(count=1, gib=0.5).usable == 0


HOST = DeviceMemory(count=1, gib=24, host_gib=80)


def test_the_optimizer_goes_to_the_host_where_there_is_no_other_device() -> None:
    gib = {"weights": 2.0, "trained": 7.0, "activations": 0.1}
    assert isinstance(found_for(DeviceMemory(count=1, gib=24), **gib), Infeasible)
    found = placed(HOST, **gib)
    assert (found.lane, found.devices, found.deepspeed) == ("solo", 1, "2-offload")
    assert found.engine == "ZeRO-2 with offload"
    optimizer_gib, master_gib, gradients_gib = 14, 7, 7
    assert found.host >= (optimizer_gib + master_gib + gradients_gib) * GIB
    assert "of the host's memory beside it" in found.reason
    assert placed(DeviceMemory(count=4, gib=24, host_gib=80), **gib).deepspeed == "2", (
        "other devices are faster"
    )


def test_the_weights_go_to_the_host_where_they_do_not_fit() -> None:
    found = placed(HOST, weights=28, trained=0.1, activations=0.1)
    assert (found.devices, found.deepspeed) == (1, "3-offload")
    assert found.host > 2 * 28 * GIB, "the base, and what ZeRO-3 makes of it"


def test_what_the_host_lacks_is_not_offloaded() -> None:
    small = DeviceMemory(count=1, gib=24, host_gib=16)
    assert small.usable_host == int((16 * GIB - HOST_BYTES) * USABLE)
    gib = {"weights": 2.0, "trained": 7.0, "activations": 0.1}
    found = found_for(small, **gib)
    assert isinstance(found, Infeasible) and found.least > small.usable


def test_as_many_questions_are_answered_at_once_as_fit() -> None:
    devices, gib = (
        DeviceMemory(count=1, gib=24),
        {"weights": 1.5, "trained": 1.0, "activations": 0.5},
    )
    few = placed(devices, **gib, answer=0.25)
    assert (few.pieces, few.micro_batch, few.evaluation_batch) == (1, BATCH, 64), "1.5 + 3 + 16"
    assert placed(devices, **gib).evaluation_batch == 128
    corrected = placed(devices, 1.1, **gib, answer=0.25)
    assert corrected.evaluation_batch == 32, "what was measured counts here too"
    assert found_for(devices, **gib, answer=30) != few, "not one question can be answered"


def test_those_who_share_a_device_leave_room_for_the_answers_of_all() -> None:
    devices, gib = (
        DeviceMemory(count=1, gib=24),
        {"weights": 1.5, "trained": 0.01, "activations": 0.05},
    )
    found = placed(devices, **gib, answer=0.05)
    assert found.sharing > 1 and found.evaluation_batch == 32


def test_after_an_out_of_memory_no_more_are_answered_than_learnt_from() -> None:
    whole = uniform_placement(devices=1, deepspeed="off", batch_size=BATCH, sharing=1, reason="")
    half = halved(whole)
    assert half is not None and half.evaluation_batch == half.micro_batch == BATCH // 2
    fewer = halved(replace(half, evaluation_batch=4))
    assert fewer is not None and fewer.evaluation_batch == 4


def untuned(devices: DeviceMemory, sharing: int = 1, **gib: float) -> Placement | Infeasible:
    return place_untuned(answering(**gib), BATCH, devices, sharing)


def test_the_untuned_model_is_beside_the_others_where_it_fits() -> None:
    found = untuned(DeviceMemory(count=2, gib=24), sharing=4, weights=1.5, each=0.05)
    assert isinstance(found, Placement)
    assert (found.lane, found.sharing, found.deepspeed) == ("shared", 4, "off")
    assert found.evaluation_batch == 64, "four who answer 64 at once fit beside one base"
    alone = untuned(DeviceMemory(count=2, gib=24), sharing=4, weights=1.5, each=10)
    assert isinstance(alone, Placement)
    assert (alone.lane, alone.sharing, alone.evaluation_batch) == ("solo", 1, 1)


def test_the_untuned_model_is_divided_where_it_fits_on_no_device() -> None:
    found = untuned(DeviceMemory(count=8, gib=16), sharing=4, weights=28, each=0.1)
    assert isinstance(found, Placement)
    assert (found.lane, found.devices, found.deepspeed, found.sharing) == ("gang", 4, "3", 1)
    assert found.evaluation_batch == 64 and found.peak <= DeviceMemory(count=8, gib=16).usable
    assert found.reason == "it only answers, on 4 devices by ZeRO-3: 13.4 GiB of 13.8 GiB"
    beside = untuned(HOST, weights=28, each=0.1)
    assert isinstance(beside, Placement)
    assert (beside.devices, beside.deepspeed, beside.lane) == (1, "3-offload", "solo")


def test_the_untuned_model_is_not_run_where_nothing_holds_it() -> None:
    found = untuned(DeviceMemory(count=2, gib=16), weights=60, each=0.1)
    assert isinstance(found, Infeasible) and "bf16 weights, or more devices" in found.reason
