"""A made-up study: losses from a formula, no model and no Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Space, method
from study.config.goals import Limit
from study.planning.placement import uniform_placement
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.record import Outcome, Rung, TrialEnd
from study.trials.spec import TrialSpec
from study.worker.orders import ForgetTrial, TrialReport

if TYPE_CHECKING:
    from study.execution.dispatcher import Dispatcher
    from study.planning.cluster_partition import ClusterPartition

SPACE = Space(
    question="?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1)),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 8)), lr=LogUniform(1e-5, 1e-2)),
    },
)
PROTOCOL: dict[str, Any] = {
    "settings": {"space": "smoke", "seed": 0, "data": "phantom", "data_root": None},
    "data": {"name": "phantom", "digest": "ab" * 32, "questions": {"train": 9, "test": 3}},
    "versions": {"torch": "2"},
    "commit": "abc",
    "command": "python -m study.launch",
    "begun": "today",
    "identity": "5eed",
}
"""As far as MLflow asks for it."""


def rules(
    *,
    space: Space = SPACE,
    trials: int = 12,
    seed: int = 0,
    allocate: str = "floor",
    limits: tuple[Limit, ...] = (),
    objectives: tuple[str, ...] = (),
) -> SearchRules:
    return SearchRules(
        space=space,
        budget=Budget(trials=trials, max_examples=960, rungs=2),
        slots=("vision", "decoder"),
        seed=seed,
        confirm_seeds=2,
        allocate=allocate,
        limits=limits,
        objectives=objectives,
        base="made up",
    )


class MadeUpHost:
    """A host that trains nothing; what ``advance`` returns is each test's own."""

    async def forget(self, order: ForgetTrial) -> None:
        """Forget a trial, of which nothing was kept."""

    async def alive(self) -> None:
        """Answer, which shows that the host is alive."""

    async def processor_seconds(self) -> float | None:
        """Processor time of the training, of which there is none."""


def hosts_alone(actor: type, config: Any, partition: ClusterPartition) -> Dispatcher:
    """Hosts of made-up trials, which need one device each."""
    from study.execution.dispatcher import Dispatcher
    from study.execution.gang_pool import GangPool
    from study.execution.host_pool import HostPool
    from study.planning.arm_placements import ArmPlacements

    told = uniform_placement(
        devices=1, deepspeed="off", batch_size=32, sharing=partition.trials_per_host, reason=""
    )
    return Dispatcher(
        HostPool(actor, config, partition), GangPool(config, partition), ArmPlacements({}, told)
    )


def loss_of(spec: TrialSpec, examples_seen: int) -> float:
    """A made-up learning curve with the best learning rate at 3e-3."""
    return (math.log10(spec.lr) + 2.5) ** 2 + 100 / examples_seen


def advanced(spec: TrialSpec, heard: int) -> TrialReport:
    """A host's report of a trial that was last heard of at ``heard`` examples."""
    costs, ahead = {"seconds": 1.0}, [stop for stop in spec.stops if stop > heard]
    return TrialReport(
        rung=replace(rung(spec, ahead[0]), costs=costs) if ahead else None,
        outcome=Outcome.COMPLETE if len(ahead) <= 1 else None,
        costs=costs,
    )


def rung(spec: TrialSpec, examples_seen: int) -> Rung:
    return Rung(
        examples_seen=examples_seen,
        validation_loss=loss_of(spec, examples_seen),
        train_loss=1.0,
        seconds=examples_seen / 100,
        reported_at=time.time(),
    )


def play(
    scheduler: StudyScheduler,
    spec: TrialSpec,
    costs: Mapping[str, float] = MappingProxyType({"seconds": 1.0}),
    scores: Mapping[str, float] = MappingProxyType({"validation.overall": 50.0}),
) -> Outcome:
    """Run one trial to its end, from where it stood."""
    seen = scheduler.journal.records[spec.id].examples_seen
    for stop in (stop for stop in spec.stops if stop > seen):
        goes_on = scheduler.reported(spec.id, rung(spec, stop))
        if not goes_on and stop < spec.stops[-1]:
            scheduler.ended(spec.id, TrialEnd(outcome=Outcome.PRUNED, costs=costs))
            return Outcome.PRUNED
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.COMPLETE, costs=costs, scores=scores))
    return Outcome.COMPLETE


def play_all(scheduler: StudyScheduler, *, most: int = 10**6) -> StudyScheduler:
    """Run trials one after another until all is done, or ``most`` have been."""
    for _ in range(most):
        if scheduler.done:
            break
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec)
    return scheduler


def cards(trials: Sequence[str], folder: Path) -> None:
    """What stands for models that are written."""
    for trial in trials:
        (folder / trial).mkdir()
        (folder / trial / "README.md").write_text("a card")
