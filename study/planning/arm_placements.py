"""Placement of each arm's trials, and how an out-of-memory error changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from study.config import spaces
from study.planning.cluster_partition import ClusterPartition
from study.planning.placement import (
    GIB,
    DeviceMemory,
    Infeasible,
    Placement,
    halved,
    uniform_placement,
)
from study.trials.record import TrialRecord
from study.trials.spec import Kind, TrialSpec
from trainables.engine.training_settings import UNDIVIDED

if TYPE_CHECKING:
    from study.config.definition import StudyDefinition
    from study.config.deployment import Deployment
    from study.planning.workload_profile import WorkloadProfile

OUT_OF_MEMORY_FACTOR = 1.05
"""Memory that a trial which ran out of it is taken to have needed, as a multiple of the usable
memory."""
OUT_OF_MEMORY_KEY = "out_of_memory"
"""Key in ``TrialRecord.ran`` under which an out-of-memory error is noted."""

UNTUNED = str(Kind.UNTUNED)
"""Name by which the untuned model is placed, as arms are; it trains nothing."""

GANG_ENGINE = "2"
"""DeepSpeed setting of a trial on several devices: the lowest ZeRO stage that saves memory on each
of them."""

PlaceArm = Callable[[str, float], Placement | Infeasible]
"""Function that gives the cheapest placement that fits, from an arm (or ``UNTUNED``) and the ratio
of measured to predicted memory."""


@dataclass(frozen=True, kw_only=True)
class PlacedArms:
    """Arms of a study with what is known of the loaded model and data, and where each arm runs."""

    profile: WorkloadProfile
    placements: ArmPlacements
    nowhere: Mapping[str, Infeasible]
    """Name of an arm, or of the untuned model, that fits on no device and is not run -> why."""


class ArmPlacements:
    """Placements of a study's trials, by arm.

    A trial that runs out of memory is tried once more, in a placement that takes less. If memory
    was predicted, the prediction is corrected by the failure, for all arms and for the rest of the
    study. If it was not, the trials of this arm take half as many questions at once from then on.
    """

    def __init__(
        self,
        by_arm: Mapping[str, Placement],
        untuned: Placement | None,
        *,
        place_arm: PlaceArm | None = None,
        devices: DeviceMemory | None = None,
        corrections: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Start with the placements of a study.

        Args:
            by_arm: arm -> placement of its trials.
            untuned: placement of the untuned model; None if it fits nowhere.
            place_arm: what the placements come from, if they come from a memory prediction.
            devices: memory of the devices, if placements come from a memory prediction.
            corrections: arm -> ratio of the memory that three steps took to what was predicted of
                them, by which its prediction was corrected.
        """
        self._placed = {**by_arm, **({UNTUNED: untuned} if untuned else {})}
        self.correction = 1.0
        """Ratio of measured to predicted memory, learnt from trials that ran out of memory."""
        self._place_arm, self._devices = place_arm, devices
        self.corrections = corrections
        self._again: set[str] = set()
        """Ids of trials that have had their second chance."""

    @property
    def by_arm(self) -> Mapping[str, Placement]:
        """Arm -> placement, without the untuned model."""
        return {arm: where for arm, where in self._placed.items() if arm != UNTUNED}

    @property
    def untuned(self) -> Placement | None:
        """Placement of the untuned model; None if it fits nowhere."""
        return self._placed.get(UNTUNED)

    @property
    def every(self) -> set[Placement]:
        """All placements that trials may have."""
        return set(self._placed.values())

    @property
    def sizes(self) -> set[int]:
        """All numbers of devices that a trial may have."""
        return {placement.devices for placement in self.every}

    def concurrency(self, partition: ClusterPartition) -> int:
        """Maximum number of trials at a time."""
        most = max(placement.sharing for placement in self.every)
        return min(partition.concurrency, partition.hosts * most)

    def find(self, spec: TrialSpec) -> Placement:
        """Placement of a trial."""
        found = self._placed.get(spec.arm, self.untuned)
        assert found is not None, "what fits nowhere is not drawn"
        return found

    def recall(self, records: Iterable[TrialRecord]) -> None:
        """Learn again, on resume, what out-of-memory errors of earlier sessions taught."""
        for record in records:
            if OUT_OF_MEMORY_KEY not in record.ran or record.spec.arm not in self._placed:
                continue  # an arm may fit nowhere by now
            if not self.find(record.spec).plain().items() <= record.ran.items():
                self.out_of_memory(record.spec, self.find(record.spec))

    def out_of_memory(self, spec: TrialSpec, had: Placement, *, once: bool = True) -> str:
        """Learn that a trial ran out of memory where it ran. Return the note for its record if it
        is to be tried again, or an empty string if it is not. With ``once`` a trial is tried again
        once; else until it fits or there is no placement that takes less."""
        if (once and spec.id in self._again) or spec.arm not in self._placed:
            return ""
        self._again.add(spec.id)
        if self.find(spec) == had:  # else another trial's failure has changed it already
            self._learn(spec, had)
        now = self.find(spec)
        if now == had:
            return ""
        of = f" of {self._devices.usable / GIB:.1f} GiB" if self._devices else ""
        predicted = f", predicted {had.peak / GIB:.1f} GiB" if had.peak else ""
        return f"did not fit{of} as: {had.shown}{predicted}; tried again as: {now.shown}"

    def _learn(self, spec: TrialSpec, had: Placement) -> None:
        if self._place_arm is not None and self._devices is not None and had.peak:
            self.correction *= OUT_OF_MEMORY_FACTOR * self._devices.usable / had.peak
            for name in self._placed:
                found = self._place_arm(name, self.correction)
                if isinstance(found, Placement):
                    self._placed[name] = found
        arm, trains = spec.arm, spec.arm != UNTUNED
        if self._placed[arm] == had:
            share = spec.batch_size // had.devices if trains else None
            self._placed[arm] = halved(had, trains=trains, share=share) or had


def uniform_placements(
    definition: StudyDefinition, deployment: Deployment, *, trials_per_host: int, cuda: bool
) -> ArmPlacements:
    """Place all arms from options alone; memory is not predicted. Arms differ in nothing but the
    size of their batches, and in that an optimizer that cannot be divided has no ZeRO.

    ``trials_per_host`` is the number of trials that may share a device.

    Raises:
        BadInput: the devices of a trial cannot share a batch evenly.
    """
    devices = deployment.devices_per_trial
    engine = definition.engine_on(cuda=cuda, sharing=trials_per_host > 1)
    gang = devices is not None and devices > 1 and definition.engine is None

    def placed(sizes: Iterable[int], *, undivided: bool = False) -> Placement:
        """Placement for batches of these sizes, ascending; it has room for the last."""
        found = [
            uniform_placement(
                devices=1 if devices is None else devices,
                deepspeed=("off" if undivided else GANG_ENGINE) if gang else engine,
                batch_size=size,
                sharing=trials_per_host,
                reason="as told" if devices else "memory is not looked at",
            )
            for size in sizes
        ]
        return found[-1]

    batch_size = definition.budget.batch_size
    by_arm = {
        name: placed(
            spaces.batch_sizes(arm, batch_size),
            undivided=bool({*spaces.optimizers(arm)} & {*UNDIVIDED}),
        )
        for name, arm in definition.space.arms.items()
    }
    return ArmPlacements(by_arm, placed([batch_size]))
