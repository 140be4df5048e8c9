"""Which placement the trials of each arm have, and what an out-of-memory changes about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from study.devices import Devices as Divided
from study.placement import GIB, Devices, Infeasible, Placement, smaller
from study.records import Kind, TrialRecord, TrialSpec

BEYOND = 1.05
"""What did not fit took at least so much of what there is."""
NOTE = "out_of_memory"
"""Under which it is noted with the trial, in ``TrialRecord.ran``."""

UNTUNED = str(Kind.UNTUNED)
"""The untuned model is placed as an arm is; it trains nothing."""

Place = Callable[[str, float], Placement | Infeasible]
"""From an arm, or ``UNTUNED``, and what was measured to what was predicted, to the cheapest way
that fits."""


class Placements:
    """Where the trials of a study run.

    A trial that runs out of memory is tried once more, in less. If memory was predicted, the
    prediction is corrected by it, for all arms and for the rest of the study; if it was not, the
    trials of this arm take half as many questions at once from then on.
    """

    def __init__(
        self,
        by_arm: Mapping[str, Placement],
        untuned: Placement | None,
        *,
        place: Place | None = None,
        devices: Devices | None = None,
        corrections: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """``untuned`` is that of a trial which trains nothing; None: it fits nowhere. ``place`` and
        ``devices`` are what the placements come from, if they come from a prediction, and
        ``corrections`` what it was corrected by: arm -> what three steps took to what was
        predicted of them."""
        self._placed = {**by_arm, **({UNTUNED: untuned} if untuned else {})}
        self.correction = 1.0
        """What was measured to what was predicted."""
        self._place, self._devices = place, devices
        self.corrections = corrections
        self._again: set[str] = set()
        """Trials that have had their second chance."""

    @property
    def by_arm(self) -> Mapping[str, Placement]:
        """Those of what trains."""
        return {arm: where for arm, where in self._placed.items() if arm != UNTUNED}

    @property
    def untuned(self) -> Placement | None:
        """That of the untuned model."""
        return self._placed.get(UNTUNED)

    @property
    def every(self) -> set[Placement]:
        """Those that trials may have."""
        return set(self._placed.values())

    @property
    def sizes(self) -> set[int]:
        """Devices of a trial."""
        return {placement.devices for placement in self.every}

    def concurrency(self, devices: Divided) -> int:
        """Trials at a time at most."""
        most = max(placement.sharing for placement in self.every)
        return min(devices.concurrency, devices.hosts * most)

    def of(self, spec: TrialSpec) -> Placement:
        """That of a trial."""
        found = self._placed.get(spec.arm, self.untuned)
        assert found is not None, "what fits nowhere is not drawn"
        return found

    def recall(self, records: Iterable[TrialRecord]) -> None:
        """Learn anew what was learnt before the study was interrupted."""
        for record in records:
            if NOTE not in record.ran or record.spec.arm not in self._placed:
                continue  # an arm may fit nowhere by now
            if not self.of(record.spec).plain().items() <= record.ran.items():
                self.out_of_memory(record.spec, self.of(record.spec))

    def out_of_memory(self, spec: TrialSpec, had: Placement) -> str:
        """Learn that a trial did not fit where it ran; what to note if it is to be tried again,
        empty if it is not."""
        if spec.id in self._again or spec.arm not in self._placed:
            return ""
        self._again.add(spec.id)
        if self.of(spec) == had:  # otherwise another trial has taught it already
            self._learn(spec.arm, had)
        now = self.of(spec)
        if now == had:
            return ""
        of = f" of {self._devices.usable / GIB:.1f} GiB" if self._devices else ""
        predicted = f", predicted {had.peak / GIB:.1f} GiB" if had.peak else ""
        return f"did not fit{of} as: {had.shown}{predicted}; tried again as: {now.shown}"

    def _learn(self, arm: str, had: Placement) -> None:
        if self._place is not None and self._devices is not None and had.peak:
            self.correction *= BEYOND * self._devices.usable / had.peak
            for name in self._placed:
                found = self._place(name, self.correction)
                if isinstance(found, Placement):
                    self._placed[name] = found
        if self._placed[arm] == had:
            self._placed[arm] = smaller(had, trains=arm != UNTUNED) or had
