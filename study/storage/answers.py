"""Answers that a trial gave, question by question, as parquet files: paired tests need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.storage.paths import atomic_write
from study.storage.study_folder import StudyFolder
from trainables.errors import BadInput
from trainables.training.blind import BLIND

if TYPE_CHECKING:
    from study.trials.record import TrialRecord
    from trainables.data.common.dataset import Example

LIKELIHOODS = "likelihoods"
"""Name of the column of log-likelihoods of the possible answers to each question."""
PATIENT = "patient"
"""Name of the column of patients, in tables of data that name them; earlier versions lack it."""
SHORT = ("overall", "open", "closed")
"""Scores that are kept of questions that were asked of other images (``BLIND``)."""
SCORING = b"scoring"
"""Key, in a table's metadata, of the version of the rules by which its answers were scored."""


def write(
    study_folder: StudyFolder,
    trial_id: str,
    split: str,
    examples: Sequence[Example],
    answers: Sequence[str],
    likelihoods: Sequence[Sequence[float] | None] | None = None,
) -> Path:
    """Write one row per question into the study's folder on this node, whole or not at all. Return
    the file's path. ``likelihoods`` are those of the possible answers to each question, None where
    these are not known."""
    from trainables.measures.common.scores import VERSION

    table = pa.table(
        {
            "question_id": [e.question_id for e in examples],
            "image_id": [e.image_id for e in examples],
            "question": [e.question for e in examples],
            "answer_type": [e.answer_type for e in examples],
            "truth": [e.answer for e in examples],
            "answer": list(answers),
            **(
                {PATIENT: [e.patient for e in examples]} if any(e.patient for e in examples) else {}
            ),
            **({} if likelihoods is None else {LIKELIHOODS: list(likelihoods)}),
            **_chosen(examples, answers),
            **_scored(examples, answers),
        }
    )
    table = table.replace_schema_metadata({SCORING: str(VERSION)})
    path = study_folder.answers(trial_id, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        pq.write_table(table, partial)
    return path


def read(study_folder: StudyFolder, trial_id: str, split: str) -> pa.Table:
    """The table that ``write`` wrote. If an older version of the rules scored it, its answers are
    scored anew; the file stays as it is.

    Raises:
        BadInput: the file is damaged.
        OSError: it is not there, or the disk cannot give it.
    """
    from trainables.measures.common.scores import VERSION

    file = study_folder.answers(trial_id, split)
    with _reading(file):
        table = pq.read_table(file)
        # Tables that are older than this note are of version 1.
        if int((table.schema.metadata or {}).get(SCORING, 1)) == VERSION:
            return table
        for name, values in _scored(*stored_examples(table)[:2]).items():
            column = table.schema.get_field_index(name)
            table = table.set_column(column, name, pa.array(values))
        return table


def scored_by_older_rules(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records whose scores an older version of the rules made."""
    from trainables.measures.common.scores import VERSION

    return [record for record in records if record.scores and record.scoring != VERSION]


def score_again(study_folder: StudyFolder, records: Iterable[TrialRecord]) -> None:
    """Give each of ``records`` the scores that its stored answers have by the rules as they are
    now."""
    from trainables.measures.common.scores import VERSION

    for record in records:
        splits = dict.fromkeys(name.rpartition(".")[0] for name in record.scores)
        record.scores = scored_anew(study_folder, record.spec.id, splits)
        record.scoring = VERSION


def scored_anew(
    study_folder: StudyFolder, trial_id: str, splits: Iterable[str]
) -> dict[str, float]:
    """Scores of a trial's stored answers on ``splits``, by the rules as they are now:
    ``<split>.<part>`` -> value."""
    from trainables.measures.common.scores import score

    found: dict[str, float] = {}
    for split in splits:
        table = read(study_folder, trial_id, split)
        with _reading(study_folder.answers(trial_id, split)):
            values = score(*stored_examples(table))
        found |= named(split, values)
    return found


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Context in which a table is read.

    Raises:
        BadInput: the file is damaged.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have no number
            raise
        raise BadInput(f"{file} is damaged ({error}); give it back as it was") from None


def named(split: str, values: Mapping[str, float]) -> dict[str, float]:
    """Scores on a split as records have them: ``<split>.<part>`` -> value. Of questions that were
    asked of other images only those of ``SHORT`` are kept."""
    kept = SHORT if split in BLIND else values
    return {f"{split}.{part}": values[part] for part in kept}


def _scored(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, list[Any]]:
    """The columns that follow from answers and their examples."""
    from trainables.measures.common.parts import answer_score, is_right

    pairs = list(zip(answers, examples, strict=True))
    return {
        "correct": [is_right(answer, example) for answer, example in pairs],
        "credit": [answer_score(answer, example) for answer, example in pairs],
    }


def _chosen(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, list[Any]]:
    """Options of each question, and the one that its answer names, None if it names none; nothing
    if no question has options."""
    from trainables.measures.common.options import named

    if not any(example.options for example in examples):
        return {}
    places = [
        named(answer, example) if example.options else None
        for answer, example in zip(answers, examples, strict=True)
    ]
    return {
        "options": [list(example.options) for example in examples],
        "chosen": [
            None if place is None else example.options[place]
            for place, example in zip(places, examples, strict=True)
        ],
    }


def stored_examples(
    table: pa.Table,
) -> tuple[list[Example], list[str], list[list[float] | None] | None]:
    """The examples of a table, as far as answers are scored and compared by them, the answers to
    them, and likelihoods of their possible answers if there are some."""
    from trainables.data.common.dataset import Example

    rows = table.to_pylist()
    examples = [
        Example(
            question_id=row["question_id"],
            image_id=row["image_id"],
            image=Path(),
            question=row["question"],
            answer=row["truth"],
            answer_type=row["answer_type"],
            options=tuple(row.get("options") or ()),
            patient=row.get(PATIENT) or "",
        )
        for row in rows
    ]
    likelihoods = [row[LIKELIHOODS] for row in rows] if LIKELIHOODS in table.schema.names else None
    return examples, [row["answer"] for row in rows], likelihoods
