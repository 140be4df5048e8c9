"""Small and large trials on a few devices: simulated, with clocks instead of Ray."""

from __future__ import annotations

import heapq
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from study.execution.dispatcher import PATIENCE, Dispatcher
from study.planning.arm_placements import ArmPlacements
from study.planning.placement import uniform_placement
from study.trials.spec import Kind, TrialSpec


@dataclass
class Hosts:
    """Hosts of one place each, which take no time to start."""

    partition: Any
    handles: dict[str, str | None] = field(default_factory=dict)
    most: int = 0
    started: int = 0

    def room(self, share: float) -> bool:
        return bool(self.idle()) or len(self.handles) < self.most

    def idle(self) -> list[str]:
        return [name for name, trial in self.handles.items() if trial is None]

    def place(self, trial_id: str, share: float) -> str:
        name = next(iter(self.idle()), f"host-{self.started}")
        self.started += name not in self.handles
        self.handles[name] = trial_id
        return name

    def left(self, trial_id: str) -> None:
        name = next(name for name, trial in self.handles.items() if trial == trial_id)
        self.handles[name] = None

    def end(self, name: str) -> None:
        assert self.handles.pop(name) is None


@dataclass
class Gang:
    name: str
    size: int
    trial: str | None = None


@dataclass
class Gangs:
    handles: dict[str, Gang] = field(default_factory=dict)
    started: int = 0

    @property
    def taken(self) -> int:
        return sum(gang.size for gang in self.handles.values())

    def idle(self, size: int | None = None) -> list[Gang]:
        return [g for g in self.handles.values() if g.trial is None and size in (None, g.size)]

    def place(self, trial_id: str, size: int) -> str:
        gang = next(iter(self.idle(size)), None)
        if gang is None:
            gang = Gang(f"gang-{self.started}", size)
            self.started += 1
            self.handles[gang.name] = gang
        gang.trial = trial_id
        return gang.name

    def find(self, trial_id: str) -> Gang | None:
        return next((gang for gang in self.handles.values() if gang.trial == trial_id), None)

    def left(self, gang: Gang) -> None:
        gang.trial = None

    def end(self, gang: Gang) -> None:
        assert self.handles.pop(gang.name).trial is None


@dataclass(frozen=True)
class Count:
    hosts: int
    concurrency: int = 10**6


@dataclass
class Simulation:
    """Trials of given sizes, in this order, on so many devices, each as long as chance has it."""

    devices: int
    sizes: list[int]
    seed: int = 0
    begun: list[int] = field(default_factory=list)
    """Numbers of trials, in the order in which they began."""
    idle: list[tuple[float, int, bool]] = field(default_factory=list)
    """Time, idle devices, and whether anybody waited whom younger ones may still pass."""

    def run(self) -> None:
        placements = {
            str(size): uniform_placement(
                devices=size, deepspeed="2", batch_size=168, sharing=1, reason=""
            )
            for size in set(self.sizes)
        }
        hosts: Any = Hosts(Count(self.devices))
        gangs: Any = Gangs()
        dispatcher = Dispatcher(
            hosts, gangs, ArmPlacements(placements, next(iter(placements.values())))
        )
        numbers: dict[str, int] = {}
        drawn = self._draw(numbers)
        chance, clock, running = random.Random(self.seed), 0.0, list[tuple[float, str]]()
        while len(self.begun) < len(self.sizes) or running:
            while (start := dispatcher.next(lambda: next(drawn, None))) is not None:
                self.begun.append(numbers[start.spec.id])
                heapq.heappush(running, (clock + chance.uniform(1, 10), start.spec.id))
                used = sum(self.sizes[numbers[trial]] for _, trial in running)
                assert used <= self.devices and len(hosts.handles) + gangs.taken <= self.devices
            used = sum(self.sizes[numbers[trial]] for _, trial in running)
            oldest = dispatcher._waiting[0].passed if dispatcher.waits else 0
            self.idle.append((clock, self.devices - used, oldest < PATIENCE))
            assert running, "nothing runs, and something waits"
            clock, trial_id = heapq.heappop(running)
            dispatcher.left(trial_id)

    def _draw(self, numbers: dict[str, int]) -> Iterator[TrialSpec]:
        for number, size in enumerate(self.sizes):
            drawn = TrialSpec(
                kind=Kind.SEARCH,
                arm=str(size),
                parameters={},
                recipe={},
                lr=1e-3,
                seed=number,
                max_examples=1,
                batch_size=168,
                stops=(1,),
                base="made up",
            )
            numbers[drawn.id] = number
            yield drawn


@pytest.mark.parametrize("devices", [2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_large_trials_do_not_starve_and_small_ones_leave_no_device_idle(
    devices: int, seed: int
) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice([1, 1, 1, 2, min(3, devices), devices]) for _ in range(60)]
    simulation = Simulation(devices, sizes, seed)
    simulation.run()
    assert sorted(simulation.begun) == list(range(60))
    for place, number in enumerate(simulation.begun):
        younger = [other for other in simulation.begun[:place] if other > number]
        assert len(younger) <= PATIENCE + devices, "it was passed by too many"


def test_small_trials_begin_as_long_as_a_large_one_may_be_passed() -> None:
    simulation = Simulation(4, [1, 1, 1, 1, 4, *[1] * 40], seed=1)
    simulation.run()
    few = len(simulation.begun) - 8  # towards the end none are left to begin
    for _, idle, may_pass in simulation.idle[:few]:
        assert not (idle and may_pass), "a device was idle while small trials waited"
    assert simulation.begun.index(4) <= 4 + PATIENCE


def test_only_large_trials_take_turns() -> None:
    simulation = Simulation(4, [4] * 10)
    simulation.run()
    assert simulation.begun == list(range(10))


def test_the_driver_does_not_import_torch() -> None:
    """It would take seconds of a study's start; the zygote imports it beside Ray's start."""
    modules = "study.execution.ray_tune, study.planning.study_plan, study.search.searchers.gp"
    told = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
