"""Trains one trial in this process, without Ray and MLflow: to look at it, or to debug it.

The trial is the one that a study of the same settings draws at this point of its space, with the
same id, and it is trained by the code that a study's hosts run (``study.worker.resident_trials``).
So its losses are those that it has in a study.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Arm
from study.config import spaces
from study.config.definition import StudyDefinition
from study.config.deployment import Deployment
from study.planning import provenance
from study.planning.arm_placements import uniform_placements
from study.search.trial_of_point import trial_of_point
from study.storage import scratch
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from study.trials.spec import TrialSpec
from study.worker.hardware import Hardware
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, TrialReport
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.planning.placement import Placement
    from study.worker.resident_trials import ResidentTrials
    from trainables.training.trial import Trial
    from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of an arm."""

    name: str
    """Name of the arm."""
    arm: Arm
    """The arm, with the values that the user gave in place of its ranges."""
    given: Mapping[str, Any]
    """Parameter of the search that the user gave a value -> the value."""
    typical: Mapping[str, Any]
    """Parameter that the user gave none -> the middle of its range, or of its choices."""


def point(definition: StudyDefinition) -> Point:
    """The point that the settings of a study name.

    Raises:
        BadInput: they name no arm, or several.
    """
    settings, arms = definition.settings, definition.space.arms
    if len(arms) > 1:
        names = ", ".join(arms)
        if settings.arm is None:
            raise BadInput(f"space {settings.space!r} has several arms; give --arm, one of {names}")
        raise BadInput(f"--arm {settings.arm} names several arms; give one of {names}")
    ((name, arm),) = arms.items()
    searched = spaces.ranges(spaces.load(settings.space).arms[name])
    values, open_ = spaces.settings(arm), spaces.ranges(arm)
    return Point(
        name=name,
        arm=arm,
        given={n: values[n] for n in searched if n in values and n not in open_},
        typical={n: spaces.middle(n, range_) for n, range_ in open_.items()},
    )


def spec_of(
    point: Point, definition: StudyDefinition, workload: Workload, precision: str
) -> TrialSpec:
    """The trial at a point, as a study that computes in ``precision`` draws it.

    Raises:
        BadInput: the arm names a slot that the model lacks.
    """
    base = provenance.base_of(
        definition,
        model=workload.digest,
        data=workload.dataset.digest,
        precision=precision,
        beams=workload.beams,
    )
    spec = trial_of_point(
        point.name,
        point.arm,
        lambda parameter, _: point.typical[parameter],
        budget=definition.budget,
        slots=workload.model.slots,
        seed=definition.settings.seed,
        base=provenance.digest(base),
    )
    # What the user gave is no range any more, but it is part of the trial that a study draws.
    given = {n: list(v) if isinstance(v, tuple) else v for n, v in point.given.items()}
    return replace(spec, parameters={**given, **spec.parameters})


@dataclass(frozen=True, kw_only=True)
class SingleTrial:
    """A trial that is trained in this process."""

    definition: StudyDefinition
    spec: TrialSpec
    workload: Workload
    precision: str
    """Precision in which it computes, ``fp32`` or ``bf16``."""
    threads: int
    """Threads that compute."""

    @classmethod
    def load(cls, definition: StudyDefinition, threads: int | None) -> SingleTrial:
        """Load model and data. ``threads`` is 1 by default on a processor, as on a study's
        hosts: sums are rounded in another way by more of them.

        Raises:
            BadInput: they cannot be read, or do not go together.
        """
        from trainables.workload import Workload

        which = point(definition)
        definition.check_engine()
        hardware = Hardware.here(definition.precision)
        config = replace(definition.workload, precision=hardware.precision)
        workload = Workload.load(config)
        definition = definition.with_data(len(workload.dataset.train))
        return cls(
            definition=definition,
            spec=spec_of(which, definition, workload, hardware.precision),
            workload=workload,
            precision=hardware.precision,
            threads=threads or (os.cpu_count() or 1 if hardware.devices else 1),
        )

    def train(
        self, stepped: Callable[[Trial], object], say: Callable[[str], object]
    ) -> Iterator[TrialReport]:
        """Train the trial and give its reports, the last of which has its outcome. A trial that
        runs out of memory is tried again with fewer questions at once, until it fits or there is
        no less. In a study the trials of an arm come to the same, one after another.

        Args:
            stepped: is called after each step.
            say: shows the user a line.
        """
        from study.worker.resident_trials import ResidentTrials

        with scratch.folder("trial") as folder:
            study_folder = StudyFolder(storage=folder, name="trial")
            residents = ResidentTrials(self._config(study_folder), self.workload)
            placements = uniform_placements(
                self.definition,
                Deployment(study_folder=study_folder, tracking_uri=""),
                trials_per_host=1,
                cuda=False,  # plain PyTorch, unless the user chose an engine
            )
            while True:
                placement = placements.find(self.spec)
                report = TrialReport()
                for report in self._reports(residents, placement, stepped):
                    if report.outcome is not Outcome.OUT_OF_MEMORY:
                        yield report
                if report.outcome is not Outcome.OUT_OF_MEMORY:
                    return
                note = placements.out_of_memory(self.spec, placement, once=False)
                if not note:
                    yield report
                    return
                say(note)
                residents.forget(self.spec.id)

    def _reports(
        self,
        residents: ResidentTrials,
        placement: Placement,
        stepped: Callable[[Trial], object],
    ) -> Iterator[TrialReport]:
        """Reports of the trial from its first to its last."""
        order = AdvanceTrial(spec=self.spec, placement=placement)
        while True:
            reply = Future[TrialReport]()
            residents.advance(order, reply)
            while not reply.done():
                trial = residents.here[self.spec.id].trial
                residents.step()
                if trial is not None:
                    stepped(trial)
            report = reply.result()
            yield report
            if report.done or report.fault:
                return
            order = order.after(report)

    def _config(self, study_folder: StudyFolder) -> HostConfig:
        return HostConfig(
            workload=replace(self.definition.workload, precision=self.precision),
            ood_workloads={},
            study_folder=study_folder,
            regime=self.definition.regime,
            trials_per_host=1,
            saves=False,
            threads=self.threads,
        )
