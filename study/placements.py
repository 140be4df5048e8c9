"""Which placement each trial of a study has: its arm's, unless that took too much memory."""

from __future__ import annotations

from collections.abc import Mapping

from study.placement import Placement
from study.records import TrialSpec


class Placements:
    """Where the trials of a study run."""

    def __init__(self, by_arm: Mapping[str, Placement], untuned: Placement) -> None:
        """``untuned`` is that of a trial which trains nothing."""
        self.by_arm, self.untuned = by_arm, untuned

    @property
    def every(self) -> set[Placement]:
        """Those that trials may have."""
        return {*self.by_arm.values(), self.untuned}

    @property
    def sizes(self) -> set[int]:
        """Devices of a trial."""
        return {placement.devices for placement in self.every}

    def of(self, spec: TrialSpec) -> Placement:
        """That of a trial."""
        return self.by_arm.get(spec.arm, self.untuned)
