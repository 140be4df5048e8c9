"""Reads studies that are to be compared, and refuses those that cannot be."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis import results_file
from study.analysis.result_types import ArmResult, StudyResults, UsedProtocol
from study.config.begun_study import BegunStudy, begun_study
from study.protocol import planned
from study.storage import answers
from study.storage.mirror import fetch_study
from study.storage.study_folder import StudyFolder
from study.trials.text import settings_text, short
from trainables.data.common.dataset import Example, questions_digest
from trainables.errors import BadInput
from trainables.measures.common.scores import VERSION as SCORING
from trainables.training.regime import CHOOSE

if TYPE_CHECKING:
    from pyarrow import Table

Array = np.ndarray[Any, Any]
TEST = "test"
"""Name under which answers to the test questions are stored."""
SHOWN_DIGEST = 12
"""Letters of a digest that are shown."""
OWN = ("command", "begun", "identity", "not_run", "protocol_sha256")
"""Keys of a protocol that are each study's own, or that its settings follow."""
PLACES = ("settings.data_root", "settings.seed")
"""Settings that do not say what a study asked."""


@dataclass(frozen=True, kw_only=True)
class TestedStudy:
    """A finished study with its answers to the test questions."""

    study_folder: StudyFolder
    results: StudyResults

    @property
    def name(self) -> str:
        """Name of the study, which is that of its folder."""
        return self.study_folder.name

    @cached_property
    def used(self) -> UsedProtocol:
        """How the study was done, as far as code depends on it."""
        return results_file.used_protocol(self.results)

    @cached_property
    def begun(self) -> BegunStudy:
        """What the study was begun with."""
        return begun_study(self.study_folder.path)

    @property
    def _first(self) -> str:
        """Trial whose stored questions the others' have to be."""
        return self.results.confirmed[0].seeds[0].trial

    @cached_property
    def examples(self) -> list[Example]:
        """The test questions, by their ids."""
        return self.in_order(answers.stored_examples(self._table(self._first))[0])

    @cached_property
    def _asked(self) -> list[str]:
        """Ids of the test questions as they were stored."""
        table = answers.read(self.study_folder, self._first, TEST)
        return [str(asked) for asked in table["question_id"].to_pylist()]

    @cached_property
    def _order(self) -> list[int]:
        """Places of the test questions as they were stored, by their ids."""
        return sorted(range(len(self._asked)), key=lambda place: self._asked[place])

    def _table(self, trial: str) -> Table:
        """The answers of a trial to the test questions.

        Raises:
            BadInput: they are not there, are damaged, or are to other questions than those of the
                study's other trials.
        """
        table = answers.read(self.study_folder, trial, TEST)
        if table["question_id"].to_pylist() != self._asked:
            file = self.study_folder.answers(trial, TEST)
            raise BadInput(f"{file} has answers to other questions than the study's other trials")
        return table

    @cached_property
    def images_digest(self) -> str:
        """Digest of the test images; empty if the study has no protocol that says it."""
        folder = self.study_folder.path
        return planned.read(folder).test.images_digest if planned.digest(folder) else ""

    @cached_property
    def test_digest(self) -> str:
        """Digest of the test questions and their answers."""
        return questions_digest(self.examples)

    def in_order(self, given: Sequence[Any]) -> list[Any]:
        """What belongs to the test questions as they were stored, by the questions' ids."""
        return [given[place] for place in self._order]

    def credits(self, arm: ArmResult) -> Array:
        """Credit of each answer to the test questions of an arm's models, 0 to 1; shape (S, Q). If
        there are several searches of each arm, S counts those, and the credit is the mean over a
        search's models."""
        return np.stack(
            [
                np.mean([self._credit(trial) for trial in trials], axis=0)
                for trials in self.models(arm)
            ]
        )

    def models(self, arm: ArmResult) -> list[list[str]]:
        """Trials of an arm's confirmations; those that count as one model are together."""
        by_search: dict[int, list[str]] = {}
        for place, seed in enumerate(arm.seeds):
            alike = self.results.trial(seed.trial).search if self.results.searches > 1 else place
            by_search.setdefault(alike, []).append(seed.trial)
        return [*by_search.values()]

    def _credit(self, trial: str) -> Array:
        return np.asarray(self.in_order(self._table(trial)["credit"].to_pylist()))


def read(storage: str, names: Sequence[str]) -> list[TestedStudy]:
    """Read finished studies that can be compared with one another.

    Raises:
        BadInput: there are fewer than two, one is named twice, or one has no confirmed arm, was
            tested on other questions, or was scored or decided by other rules.
    """
    if len(names) < 2:
        raise BadInput(f"only one study is given, {names[0]!r}; a comparison takes two or more")
    for name, count in Counter(names).items():
        if count > 1:
            raise BadInput(f"study {name!r} is given {count} times; each is compared once")
    folders = [fetch_study(storage, name) for name in names]
    studies = [TestedStudy(study_folder=f, results=results_file.read(f)) for f in folders]
    for study in studies:
        if not study.results.confirmed:
            raise BadInput(
                f"study {study.name!r} has no confirmed arm, so there is nothing to compare: "
                f"{' '.join(study.results.verdict.split())}"
            )
        if study.results.splits > 1:
            raise BadInput(
                f"study {study.name!r} has {study.results.splits} splits of its data, each with "
                "test questions of its own; studies are compared on the same ones"
            )
        if study.results.scoring != SCORING:
            raise BadInput(
                f"study {study.name!r} was scored by rules of version {study.results.scoring}, "
                f"and these are of version {SCORING}; --resume {study.name} scores it anew"
            )
    first, *others = studies
    for one, other in itertools.combinations(studies, 2):
        if one.used.identity and one.used.identity == other.used.identity:
            raise BadInput(f"studies {one.name!r} and {other.name!r} are copies of one study")
    for study in others:
        for what, value, advice in RULES:
            if value(study) != value(first):
                raise BadInput(
                    f"study {study.name!r} has {what} {value(study)}, and {first.name!r} "
                    f"{value(first)}: {advice}"
                )
        if first.images_digest and study.images_digest not in ("", first.images_digest):
            raise BadInput(
                f"study {study.name!r} was asked the same questions about other images than "
                f"{first.name!r}, though they go by the same names"
            )
    return studies


def differing(studies: Sequence[TestedStudy]) -> dict[str, dict[str, str]]:
    """What the studies were done with that is not the same in all of them -> study -> its value."""
    flat = {study.name: _flat(study.results.protocol) for study in studies}
    keys = dict.fromkeys(key for each in flat.values() for key in each)
    found = {key: {name: each.get(key, "\u2013") for name, each in flat.items()} for key in keys}
    return {key: values for key, values in found.items() if len({*values.values()}) > 1}


def shared_reference(studies: Sequence[TestedStudy]) -> str | None:
    """Arm against which each other arm is compared, if all studies declared the same one and each
    confirmed it; None: all pairs are compared."""
    against = studies[0].results.against
    alike = all(study.results.against == against for study in studies)
    return against if alike and not _without_reference(studies) else None


def _without_reference(studies: Sequence[TestedStudy]) -> list[str]:
    """Studies that did not confirm the arm with which they were to compare the others."""
    return [
        study.name
        for study in studies
        if study.results.against not in (None, *(arm.arm for arm in study.results.confirmed))
    ]


def _on_references(studies: Sequence[TestedStudy]) -> str:
    """Sentence on why all pairs are compared though a study declared fewer; empty if none did, or
    if they are not."""
    declared = {study.name: study.results.against for study in studies}
    if not any(declared.values()) or shared_reference(studies) is not None:
        return ""
    if without := _without_reference(studies):
        return (
            f"{' and '.join(without)} could not confirm the arm with which the others were to be "
            "compared, so all pairs of arms are compared."
        )
    each = ", ".join(
        f"{name} each arm with {against}" if against else f"{name} all pairs"
        for name, against in declared.items()
    )
    return f"The studies declared other comparisons ({each}), so all pairs of arms are compared."


def notes(studies: Sequence[TestedStudy]) -> list[str]:
    """Sentences on how far the studies can be compared."""
    said = []
    digests = {study.name: study.used.data.digest for study in studies}
    if len({*digests.values()}) > 1:
        images = "images are the same"
        if not all(study.images_digest for study in studies):
            images = "the images go by the same names, but may be others"
        said.append(f"The studies' data differ: test questions and answers are the same, {images}.")
    unnamed = [s.name for s in studies if s.used.data.patients and not _patients(s)]
    if unnamed and len(unnamed) == len(studies):
        said.append(
            "The data name patients, but these studies were written by a version that stored no "
            "patients with the answers: images are taken as independent, and intervals are too "
            "narrow if patients have several."
        )
    if line := _on_references(studies):
        said.append(line)
    arms = [study.begun.arms for study in studies]
    shared = sorted({*arms[0]}.intersection(*arms[1:]))
    other = [name for name in shared if any(each[name] != arms[0][name] for each in arms[1:])]
    if other:
        said.append(f"Arms of one name that were searched over other ranges: {', '.join(other)}.")
    return said


def with_patients(studies: Sequence[TestedStudy]) -> list[Example]:
    """The test questions, with patients if a study has stored them."""
    return next((study.examples for study in studies if _patients(study)), studies[0].examples)


def _patients(study: TestedStudy) -> bool:
    return any(example.patient for example in study.examples)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The entries of a protocol, with ``.`` between the keys of a mapping and of what it is in."""
    found: dict[str, str] = {}
    for key, held in value.items():
        name = f"{prefix}{key}"
        if name in OWN or name in PLACES or key == "findings":
            continue
        if isinstance(held, Mapping) and not prefix:
            found |= _flat(held, f"{name}.")
        elif held is not None:
            text = settings_text(held) if isinstance(held, Mapping) else short(held)
            found[name] = text[:SHOWN_DIGEST] if key in ("digest", "commit") else text
    return found


def _margin(study: TestedStudy) -> str:
    return f"{study.used.settings.margin:g}"


Rule = tuple[str, Callable[[TestedStudy], str], str]
RULES: tuple[Rule, ...] = (
    (
        "test questions",
        lambda study: f"{study.test_digest[:SHOWN_DIGEST]} ({len(study.examples):,})",
        "studies are compared on the same questions with the same answers",
    ),
    (
        "the measure",
        lambda study: study.results.decides,
        "studies are compared by one measure (--measure)",
    ),
    ("the margin", _margin, "studies are compared by one margin (--margin)"),
    (
        "--choose",
        lambda study: study.used.settings.choose or CHOOSE[0],
        "questions with options must be answered in the same way",
    ),
)
"""What must be the same in all studies, how it is shown, and why."""
