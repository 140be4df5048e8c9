"""The answers that a trial gave, question by question, as parquet: paired tests need them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from study.paths import below

if TYPE_CHECKING:
    from study.storage import Shelf
    from trainables.data.dataset import Example
    from trainables.trial import Trial
    from trainables.workload import Workload


def scored(
    trial_id: str,
    trial: Trial,
    asked: Mapping[str, tuple[Workload, str]],
    shelf: Shelf | None,
) -> dict[str, float]:
    """Scores of a trial's answers to each of what is asked, by name: a workload and its split. They
    are kept on ``shelf``, if this is the rank that keeps them."""
    from trainables.data.scores import score

    scores: dict[str, float] = {}
    for name, (workload, split) in asked.items():
        examples = workload.dataset.splits()[split]
        answers = trial.answers(split, workload)
        if shelf is not None:
            shelf.keep(write(shelf.folder, trial_id, name, examples, answers))
        scores |= {f"{name}.{part}": value for part, value in score(examples, answers).items()}
    return scores


def write(
    folder: Path, trial_id: str, split: str, examples: Sequence[Example], answers: Sequence[str]
) -> Path:
    """Write one row a question into the study's ``folder``, whole or not at all; the file's path
    from there."""
    from trainables.data.scores import correct, credit

    table = pa.table(
        {
            "question_id": [e.question_id for e in examples],
            "image_id": [e.image_id for e in examples],
            "question": [e.question for e in examples],
            "answer_type": [e.answer_type for e in examples],
            "truth": [e.answer for e in examples],
            "answer": list(answers),
            "correct": [correct(a, e.answer) for a, e in zip(answers, examples, strict=True)],
            "credit": [credit(a, e) for a, e in zip(answers, examples, strict=True)],
        }
    )
    path = _path(folder, trial_id, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    pq.write_table(table, partial)
    partial.replace(path)
    return path.relative_to(folder)


def read(folder: Path, trial_id: str, split: str) -> pa.Table:
    """What ``write`` wrote."""
    return pq.read_table(_path(folder, trial_id, split))


def _path(folder: Path, trial_id: str, split: str) -> Path:
    return below(folder, "answers", f"{trial_id}-{split}.parquet")
