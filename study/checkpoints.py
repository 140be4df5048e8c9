"""Where trials keep what they have trained, and which of it is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from study.records import Kind, TrialRecord


def path(folder: Path, trial_id: str) -> Path:
    """The checkpoints of a trial of the study in ``folder``."""
    return folder / "checkpoints" / trial_id


class Tidy:
    """Deletes what nobody needs any more: confirmed trials keep theirs, search trials don't.

    An observer of the conductor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def started(self, record: TrialRecord) -> None:
        """Nothing to do."""

    def reported(self, record: TrialRecord) -> None:
        """Nothing to do."""

    def ended(self, record: TrialRecord) -> None:
        """A search trial's checkpoint served only to survive a restart."""
        if record.spec.kind is Kind.SEARCH:
            shutil.rmtree(path(self.folder, record.spec.id), ignore_errors=True)
