"""Where trials keep what they have trained, and which of it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from study.paths import below
from study.records import Kind, TrialRecord


def path(folder: Path, trial_id: str) -> Path:
    """The checkpoints of a trial of the study in ``folder``.

    Raises:
        BadInput: this can be no trial's id.
    """
    return below(folder, "checkpoints", trial_id)


def drop_partial(folder: Path, trial_id: str) -> None:
    """Delete what there is of a checkpoint that was not written to its end: it takes room."""
    for left in path(folder, trial_id).glob("partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def sweep(folder: Path, confirmed: Collection[str]) -> None:
    """Delete what is left of other than the confirmed trials of the study in ``folder``, once all
    trials have ended: a driver was killed before it did, or a host outlived it for a moment."""
    for left in folder.glob("checkpoints/*"):
        if left.name not in confirmed:
            shutil.rmtree(left, ignore_errors=True)


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
