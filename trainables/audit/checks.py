"""Checks of a dataset: each function looks for one defect and yields what it finds.

A finding with severity "stop" means that a study's answer could not be trusted, "warn" is something
that a reader of the answer must know, and "note" is information. Two questions are the same if
their images have the same bytes and their normalised texts are equal. If at least 1 % of a split's
questions also occur in a split that was used before it, accuracy can be a percentage point too
high, so the study is stopped; a smaller share is a warning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.audit import near_duplicates
from trainables.cache.arrays import Progress
from trainables.data.common.dataset import Dataset, Example, answer_type_of
from trainables.data.common.image_cache import cached_images
from trainables.measures.common.normalize import normalize
from trainables.measures.common.options import true_option
from trainables.measures.common.scripts import words

Severity = Literal["stop", "warn", "note"]

LEAK_STOPS = 0.01  # share of a split's questions; a leak as large as this stops a study
LONG_ANSWER = 20  # words; many models generate no longer answers
SHOWN = 5  # ids listed for a finding


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One thing that is wrong with a dataset, or worth knowing about it."""

    severity: Severity
    kind: str  # identifier for programs, e.g. "test_images_shared"
    text: str  # one line for people, with numbers and what can be done
    count: int  # number of questions, images or pairs that are affected
    shown: tuple[str, ...]  # ids of the first few that are affected


def shared(dataset: Dataset, split: str, known: Sequence[str]) -> Iterator[CheckResult]:
    """Find questions, images and patients of ``split`` that are also in one of the ``known``
    splits.

    A model has been trained on or selected by the known splits before it is scored on ``split``.
    """
    splits = dataset.splits()
    before = [example for name in known for example in splits[name]]
    others = " or ".join(known)

    asked = {_question(dataset, example) for example in before}
    leaking = [e for e in splits[split] if _question(dataset, e) in asked]
    share = len(leaking) / len(splits[split])
    yield from _result(
        "stop" if share >= LEAK_STOPS else "warn",
        f"{split}_questions_shared",
        f"{len(leaking)} of {len(splits[split]):,} {split} questions ({100 * share:.1f}%) are also "
        f"in {others}, about the same image",
        [e.question_id for e in leaking],
    )
    seen = {dataset.contents[e.image_id] for e in before}
    images = sorted({e.image_id for e in splits[split]})
    in_both = [image for image in images if dataset.contents[image] in seen]
    yield from _result(
        "warn",
        f"{split}_images_shared",
        f"{len(in_both)} of {len(images):,} {split} images are also in {others}; "
        "--split by_image makes a split without them",
        in_both,
    )
    trained_on = {example.patient for example in before}
    patients = sorted({e.patient for e in splits[split] if e.patient})
    yield from _result(
        "warn",
        f"{split}_patients_shared",
        f"{len(trained_on.intersection(patients))} of {len(patients):,} {split} patients are also "
        f"in {others}; --split by_image makes a split without them",
        sorted(trained_on.intersection(patients)),
    )


def _question(dataset: Dataset, example: Example) -> tuple[str, str]:
    """What identifies a question: the sha256 of its image, and its normalised text."""
    return dataset.contents[example.image_id], normalize(example.question)


def _answer(example: Example) -> str:
    """An answer as it is compared: normalised, or the text of the option that it is."""
    return example.options[true_option(example)] if example.options else normalize(example.answer)


def copies(dataset: Dataset) -> Iterator[CheckResult]:
    """Find images that are copies of others, byte for byte, under other ids."""
    first: dict[str, str] = {}
    found = [
        f"{image_id} = {first[content]}"
        for image_id, content in sorted(dataset.contents.items())
        if first.setdefault(content, image_id) != image_id
    ]
    yield from _result(
        "note",
        "image_copies",
        f"{len(found)} of {len(dataset.contents):,} images are copies of others, byte for byte",
        found,
    )


def lookalikes(dataset: Dataset, progress: Progress | None) -> Iterator[CheckResult]:
    """Find images whose files differ but that look the same; see ``near_duplicates.pairs``."""
    thumbnails = cached_images(dataset, near_duplicates.THUMBNAIL, progress=progress)
    rows = {image_id: row for row, (image_id, _) in enumerate(dataset.images())}
    different = {dataset.contents[image_id]: image_id for image_id in sorted(rows)}
    ids = list(different.values())
    pairs = near_duplicates.pairs(thumbnails[[rows[image_id] for image_id in ids]])

    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for split, examples in dataset.splits().items():
        for example in examples:
            splits_of[dataset.contents[example.image_id]].add(split)

    def within_one(pair: tuple[int, int]) -> bool:
        one, other = (splits_of[dataset.contents[ids[index]]] for index in pair)
        return one == other and len(one) == 1

    def text(pairs: Sequence[tuple[int, int]], where: str) -> str:
        images = len({index for pair in pairs for index in pair})
        return f"{images} of {len(ids):,} images look like one {where} that is another file"

    across = [pair for pair in pairs if not within_one(pair)]
    within = [pair for pair in pairs if within_one(pair)]
    yield from _result(
        "warn",
        "lookalikes_across",
        text(across, "of another split"),
        [f"{ids[i]} ~ {ids[j]}" for i, j in across],
    )
    yield from _result(
        "note",
        "lookalikes_within",
        text(within, "of the same split"),
        [f"{ids[i]} ~ {ids[j]}" for i, j in within],
    )


def flat(dataset: Dataset, progress: Progress | None) -> Iterator[CheckResult]:
    """Find images without contrast, about which no question can be answered."""
    thumbnails_NTTC = cached_images(dataset, near_duplicates.THUMBNAIL, progress=progress)
    ids = [image_id for image_id, _ in dataset.images()]
    pixels_NPC = thumbnails_NTTC.reshape(len(ids), -1, thumbnails_NTTC.shape[-1])
    is_flat_N = (pixels_NPC == pixels_NPC[:, :1]).all(axis=(1, 2))
    found = [ids[number] for number in np.flatnonzero(is_flat_N)]
    yield from _result(
        "warn",
        "flat_images",
        f"{len(found)} of {len(ids):,} images have no contrast: all their pixels are alike once "
        f"they are {near_duplicates.THUMBNAIL} px wide; see that they are read as they should be",
        found,
    )


def contradictions(dataset: Dataset) -> Iterator[CheckResult]:
    """Find questions that are asked of an image more than once and answered differently."""
    answers: defaultdict[tuple[str, str, str], list[Example]] = defaultdict(list)
    for examples in dataset.splits().values():
        for example in examples:
            # With other options, a question may have another answer.
            options = " / ".join(sorted(example.options))
            answers[*_question(dataset, example), options].append(example)
    contradicted = [asked for asked in answers.values() if len(set(map(_answer, asked))) > 1]
    yield from _result(
        "note",
        "contradictions",
        f"{len(contradicted)} of {len(answers):,} questions are asked of an image more than once "
        "and answered differently: no model can be right each time",
        [" / ".join(e.question_id for e in asked) for asked in contradicted],
    )


def unanswerable(dataset: Dataset) -> Iterator[CheckResult]:
    """Find empty questions, and answers that a model can't give or that are scored unusually.

    Such answers are empty once normalised, long, never seen in training, or closed but other than
    yes and no.
    """
    everything = [example for examples in dataset.splits().values() for example in examples]
    known = {normalize(example.answer) for example in dataset.train}
    new = _ids(dataset.test, lambda e: e.answer_type == "open" and normalize(e.answer) not in known)
    odd = _ids(
        dataset.test,
        lambda e: (
            e.answer_type == "closed" and not e.options and answer_type_of(e.answer) == "open"
        ),
    )
    empty = _ids(everything, lambda e: not _answer(e))
    unasked = _ids(everything, lambda e: not normalize(e.question))
    long = _ids(everything, lambda e: len(words(e.answer)) > LONG_ANSWER)
    opened, closed = (
        sum(example.answer_type == kind for example in dataset.test) for kind in ("open", "closed")
    )
    yield from _result(
        "warn",
        "empty_answers",
        f"{len(empty)} of {len(everything):,} answers are empty once normalised",
        empty,
    )
    yield from _result(
        "warn",
        "empty_questions",
        f"{len(unasked)} of {len(everything):,} questions are empty",
        unasked,
    )
    yield from _result(
        "note",
        "long_answers",
        f"{len(long)} of {len(everything):,} answers have more than {LONG_ANSWER} words: see that "
        "the model can say as many",
        long,
    )
    yield from _result(
        "note",
        "closed_not_yes_no",
        f"{len(odd)} of {closed:,} closed test questions have another answer than yes or no: "
        "papers differ in where they count them",
        odd,
    )
    yield from _result(
        "note",
        "unseen_answers",
        f"{len(new)} of {opened:,} open test answers never occur in training: out of reach for a "
        "model that chooses among those it saw",
        new,
    )


def _ids(examples: Iterable[Example], wanted: Callable[[Example], bool]) -> list[str]:
    """Ids of the questions that are ``wanted``."""
    return [example.question_id for example in examples if wanted(example)]


def _result(
    severity: Severity, kind: str, text: str, about: Sequence[str]
) -> tuple[CheckResult, ...]:
    """One result about the questions or images in ``about``; none if there are none."""
    if not about:
        return ()
    shown = tuple(about[:SHOWN])
    return (CheckResult(severity=severity, kind=kind, text=text, count=len(about), shown=shown),)
