"""Deletes checkpoints that nobody needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from study.storage.study_folder import CHECKPOINTS, PARTIAL, StudyFolder
from study.trials.callback import StudyCallback
from study.trials.record import TrialRecord
from study.trials.spec import Kind


def drop_partial(study_folder: StudyFolder, trial_id: str) -> None:
    """Delete what there is of a trial's checkpoint that was not written to its end: it takes
    room."""
    for left in study_folder.checkpoints(trial_id).glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)


def sweep(study_folder: StudyFolder, confirmed: Collection[str]) -> None:
    """Delete the checkpoints of all but the ``confirmed`` trials, once all trials have ended. Some
    are left if a driver was killed before it deleted them, or if a host outlived it for a
    moment."""
    for left in study_folder.path.glob(f"{CHECKPOINTS}/*"):
        if left.name not in confirmed:
            shutil.rmtree(left, ignore_errors=True)


class CheckpointCleaner(StudyCallback):
    """Callback of the scheduler that deletes checkpoints which nobody needs any more: those of
    search trials, but not those of confirmed ones."""

    def __init__(self, study_folder: StudyFolder) -> None:
        self.study_folder = study_folder

    def ended(self, record: TrialRecord) -> None:
        """Delete a search trial's checkpoints, which served only to survive a restart."""
        if record.spec.kind is Kind.SEARCH:
            shutil.rmtree(self.study_folder.checkpoints(record.spec.id), ignore_errors=True)
