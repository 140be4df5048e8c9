"""Where trials' checkpoints lie, and which of them are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from study.storage.paths import below
from study.trials.callback import StudyCallback
from study.trials.record import TrialRecord
from study.trials.spec import Kind


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
    """Delete the checkpoints of all but the ``confirmed`` trials of the study in ``folder``, once
    all trials have ended. Some are left if a driver was killed before it deleted them, or if a host
    outlived it for a moment."""
    for left in folder.glob("checkpoints/*"):
        if left.name not in confirmed:
            shutil.rmtree(left, ignore_errors=True)


class CheckpointCleaner(StudyCallback):
    """Callback of the scheduler that deletes checkpoints which nobody needs any more: those of
    search trials, but not those of confirmed ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ended(self, record: TrialRecord) -> None:
        """Delete a search trial's checkpoints, which served only to survive a restart."""
        if record.spec.kind is Kind.SEARCH:
            shutil.rmtree(path(self.folder, record.spec.id), ignore_errors=True)
