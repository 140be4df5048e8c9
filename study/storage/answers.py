"""Answers that a trial gave, question by question, as parquet files: paired tests need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from study.storage.paths import atomic_write
from study.storage.study_folder import StudyFolder

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example
    from trainables.training.trial import Trial
    from trainables.workload import Workload


def answer_and_score(
    trial_id: str,
    trial: Trial,
    asked: Mapping[str, tuple[Workload, str]],
    study_folder: StudyFolder | None,
) -> dict[str, float]:
    """Answer ``asked`` and score the answers: ``<name>.<part>`` -> value. ``asked``: name ->
    workload and its split. The answers are written to ``study_folder``; it is None on ranks that do
    not write."""
    from trainables.measures.common.scores import score

    scores: dict[str, float] = {}
    for name, (workload, split) in asked.items():
        examples = workload.dataset.splits()[split]
        answers = trial.answers(split, workload)
        if study_folder is not None:
            study_folder.keep(write(study_folder.path, trial_id, name, examples, answers))
        scores |= {f"{name}.{part}": value for part, value in score(examples, answers).items()}
    return scores


def write(
    folder: Path, trial_id: str, split: str, examples: Sequence[Example], answers: Sequence[str]
) -> Path:
    """Write one row per question into the study's ``folder``, whole or not at all. Return the
    file's path."""
    from trainables.measures.common.normalize import correct
    from trainables.measures.common.parts import answer_score

    table = pa.table(
        {
            "question_id": [e.question_id for e in examples],
            "image_id": [e.image_id for e in examples],
            "question": [e.question for e in examples],
            "answer_type": [e.answer_type for e in examples],
            "truth": [e.answer for e in examples],
            "answer": list(answers),
            "correct": [correct(a, e.answer) for a, e in zip(answers, examples, strict=True)],
            "credit": [answer_score(a, e) for a, e in zip(answers, examples, strict=True)],
        }
    )
    path = StudyFolder.from_path(folder).answers(trial_id, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        pq.write_table(table, partial)
    return path


def read(folder: Path, trial_id: str, split: str) -> pa.Table:
    """The table that ``write`` wrote."""
    return pq.read_table(StudyFolder.from_path(folder).answers(trial_id, split))
