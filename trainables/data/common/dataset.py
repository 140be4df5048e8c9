"""Datasets: questions about images in three splits, with a digest of their content.

A dataset is a file of ``trainables/data`` that defines ``load(root: Path | None) -> Dataset``.
``root`` is the folder that the user gave as ``--data-root``, or None; a dataset that can't do
without one raises ``needs_root``. ``load`` returns what ``build`` made, so that every dataset has
passed the same checks. For the contract tests, a dataset that reads a folder also defines
``small(root, picture)``, which writes a small copy of its format; ``picture(path, number)`` draws
an image. (Those of the shipped ones are in the tests.)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.data.common.multiple_choice import cleaned, written
from trainables.errors import BadInput

AnswerType = Literal["open", "closed", "report"]
"""How an answer is scored. A report is an answer of several sentences, scored by the words that it
shares with the true one."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one image, with its answer."""

    question_id: str  # unique in the dataset
    image_id: str  # equal ids mean the same image, in all splits
    image: Path  # absolute path of the image file
    question: str
    answer: str  # as published; normalised only when answers are scored
    answer_type: AnswerType
    question_type: str = ""  # "" if the dataset gives none
    options: tuple[str, ...] = ()  # of a multiple-choice question; the answer is one of them
    patient: str = ""  # whose image it is, or another group of images; "" if the dataset names none
    modality: str = ""  # how the image was made; "" if the dataset does not say
    organ: str = ""  # organ or region that is asked about; "" if the dataset does not say

    @property
    def unit(self) -> str:
        """What is independent of the other questions: the patient or, without one, the image."""
        return f"patient:{self.patient}" if self.patient else self.image_id


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits of questions about images; made by ``build`` or ``seal``, which check them."""

    name: str
    description: str  # one line
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    contents: Mapping[str, str]  # image_id -> sha256 of the file
    digest: str  # sha256 of questions and images, made by digest_of

    def splits(self) -> dict[str, tuple[Example, ...]]:
        """The three splits by name, in the order train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def images(self) -> tuple[tuple[str, Path], ...]:
        """Every image once, as (image_id, path), sorted by id."""
        return _images(self.splits())


def build(
    *,
    name: str,
    description: str,
    root: Path,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
) -> Dataset:
    """Check the splits and their images, and make a dataset of them.

    ``root`` is the folder in which every image must lie. Links inside it are followed, since a user
    may keep images elsewhere, but a path written in a dataset must not lead out of it.

    Raises:
        BadInput: a split has no questions, a question id is used twice, one image id stands for two
            files, or an image lies outside of ``root``, is missing or can't be read.
    """
    splits = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test)}
    _check_images(name, root, splits)
    try:
        contents = {
            image_id: hashlib.sha256(path.read_bytes()).hexdigest()
            for image_id, path in _images(splits)
        }
    except OSError as error:
        raise BadInput(
            f"{name}: image {error.filename} can't be read ({error.strerror}); make it readable"
        ) from error
    return seal(name=name, description=description, contents=contents, **splits)


def seal(
    *,
    name: str,
    description: str,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    contents: Mapping[str, str],
) -> Dataset:
    """Make a dataset of examples whose images have already been checked and read.

    ``contents`` maps the id of every image to the sha256 of its file.

    Raises:
        BadInput: a split has no questions, a question id is used twice, an answer is none of its
            question's options, or an image is of two patients.
    """
    splits = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test)}
    for split, examples in splits.items():
        if not examples:
            raise BadInput(f"{name}: the {split} split is empty; it needs at least one question")
        for example in filter(lambda example: example.options, examples):
            try:
                written(example.answer, cleaned(example.options))
            except ValueError as error:
                raise BadInput(f"{name}: question {example.question_id!r}: {error}") from None
    _check_question_ids(name, splits)
    _check_patients(name, splits)
    return Dataset(
        name=name,
        description=description,
        contents={image_id: contents[image_id] for image_id, _ in _images(splits)},
        digest=digest_of(splits, contents),
        **splits,
    )


def needs_root(name: str) -> BadInput:
    """The error for a dataset that needs a folder and was given none."""
    return BadInput(f"dataset {name!r} was given no folder to read; add --data-root DIR")


def digest_of(splits: Mapping[str, Sequence[Example]], contents: Mapping[str, str]) -> str:
    """sha256 (hex) of all questions and, through ``contents``, of the bytes of all images.

    Paths are left out, so that the digest does not depend on where the dataset lies. So are
    patient, modality and organ, which change no trial.
    """
    digest = hashlib.sha256()
    for split, examples in splits.items():
        for e in examples:
            row = [split, e.question_id, e.image_id, e.question, e.answer]
            row += [e.answer_type, e.question_type]
            options = [e.options] if e.options else []  # digests of others are older than options
            line = json.dumps([*row, *options], separators=(",", ":"))
            digest.update(line.encode() + b"\n")
    for image_id, _ in _images(splits):
        digest.update(json.dumps([image_id, contents[image_id]]).encode() + b"\n")
    return digest.hexdigest()


def questions_digest(examples: Iterable[Example]) -> str:
    """sha256 (hex) of questions and their answers, whatever their order, by which studies know that
    they were tested on the same ones. Images are told by their ids alone."""
    rows = sorted(
        [e.question_id, e.image_id, e.question, e.answer, e.answer_type, *e.options]
        for e in examples
    )
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def answer_type_of(answer: str) -> AnswerType:
    """Type of an answer in a dataset that gives no types: yes and no are closed, others open."""
    return "closed" if answer.strip().rstrip(".").lower() in ("yes", "no") else "open"


def carve(
    examples: Iterable[Example], *, share: float, salt: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide examples by patient, or by image where there is none, into (the rest, a part with
    about ``share`` of these).

    Where an image goes depends only on ``salt`` and the id of its patient or its own (sha256). It
    depends on no random generator and no order of files, and adding images moves none of the
    others.
    """
    rest: list[Example] = []
    carved: list[Example] = []
    for example in examples:
        digest = hashlib.sha256(f"{salt}:{example.unit}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        (carved if place < share else rest).append(example)
    return tuple(rest), tuple(carved)


def _images(splits: Mapping[str, Sequence[Example]]) -> tuple[tuple[str, Path], ...]:
    """Every image of the splits once, as (image_id, path), sorted by id."""
    everything = {(e.image_id, e.image) for examples in splits.values() for e in examples}
    return tuple(sorted(everything))


def _check_question_ids(name: str, splits: dict[str, tuple[Example, ...]]) -> None:
    seen: set[str] = set()
    for split, examples in splits.items():
        for example in examples:
            if example.question_id in seen:
                raise BadInput(
                    f"{name}: question id {example.question_id!r} ({split}) is used twice; "
                    "every question needs its own"
                )
            seen.add(example.question_id)


def _check_patients(name: str, splits: dict[str, tuple[Example, ...]]) -> None:
    patients: dict[str, str] = {}
    for example in itertools.chain(*splits.values()):
        first = patients.setdefault(example.image_id, example.patient)
        if first != example.patient:
            raise BadInput(
                f"{name}: image {example.image_id!r} is of patient {first!r} and of "
                f"{example.patient!r}; an image has one patient"
            )


def _check_images(name: str, root: Path, splits: dict[str, tuple[Example, ...]]) -> None:
    inside = os.path.abspath(root)
    files: dict[str, Path] = {}
    missing: list[Path] = []
    for image_id, path in _images(splits):
        # abspath resolves ".." without following links, which may lead out of the folder.
        if not path.is_absolute() or not Path(os.path.abspath(path)).is_relative_to(inside):
            raise BadInput(f"{name}: image {path} lies outside of {inside}; it must lie inside")
        if files.setdefault(image_id, path) != path:
            raise BadInput(
                f"{name}: image id {image_id!r} stands for {files[image_id]} and {path}; "
                "one id is one file"
            )
        if not os.path.isfile(path):
            missing.append(path)
    if missing:
        raise BadInput(
            f"{name}: {len(missing)} of {len(files)} images are missing, first {missing[0]}; "
            "put them there or give another --data-root"
        )
