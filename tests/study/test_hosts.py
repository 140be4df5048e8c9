"""Hosts on real Ray, with Tune, and trials whose losses follow from a formula."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray

from study import tune
from study.conductor import Conductor
from study.hosts import Devices, connect
from study.placement import Placement
from study.records import Outcome, TrialSpec
from tests.study.made_up import hosts_alone, loss_of, rules

pytestmark = pytest.mark.long


class MadeUp:
    """A host that dies once: at the first second rung of a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def advance(
        self, plain: Mapping[str, Any], *, placement: Placement, heard: int, suspect: bool
    ) -> dict[str, Any]:
        spec = TrialSpec.of(plain)
        with (self.folder / "visits").open("a") as visits:
            print(spec.id, os.getpid(), suspect, file=visits)
        if heard:
            with suppress(FileExistsError):
                (self.folder / "died").touch(exist_ok=False)
                os._exit(1)
        result: dict[str, Any] = {"costs": {"seconds": 1.0}, "done": False}
        ahead = [stop for stop in spec.stops if stop > heard]
        if ahead:
            result["rung"] = {
                "examples_seen": ahead[0],
                "validation_loss": loss_of(spec, ahead[0]),
                "train_loss": 1.0,
                "seconds": 1.0,
                "reported_at": 0.0,
            }
        if len(ahead) <= 1:
            result |= {"done": True, "outcome": Outcome.COMPLETE, "scores": {}}
        return result

    async def leave(self, trial_id: str) -> None:
        """Nothing is kept."""

    async def alive(self) -> None:
        """It is."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


def play(begin: Callable[..., Conductor], folder: Path) -> Conductor:
    conductor = begin(given=rules(trials=6))
    devices = Devices(hosts=2, cpus=1, gpus=0, places=1, concurrency=2, shared=False)
    lanes = hosts_alone(MadeUp, folder, devices)
    lanes.start()
    try:
        tune.run(conductor, lanes)
    finally:
        lanes.give_back(all_idle=True)
    return conductor


def test_a_trial_whose_host_died_goes_on_on_another(
    begin: Callable[..., Conductor], tmp_path: Path
) -> None:
    conductor = play(begin, tmp_path)
    assert (tmp_path / "died").exists()
    records = conductor.ledger.records.values()
    assert {record.outcome for record in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert len(records) == 6 + 1 + 4
    visits = [line.split() for line in (tmp_path / "visits").read_text().splitlines()]
    assert len({process for _, process, _ in visits}) >= 2
    assert sum(suspect == "True" for _, _, suspect in visits) == 1
