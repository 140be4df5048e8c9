"""Questions about the cases, balanced so that no answer can be guessed from its question.

The questions of a split are planned before they are given to images. Within every split, each
closed wording is asked as often with "yes" as with "no", and each open wording equally often with
each of its answers. Then each planned (wording, answer) goes to an image of which it is true.
Someone who sees only the words therefore gets exactly half of the closed questions right, and one
in k of the open ones with k answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trainables.data._phantom.bits import Bits
from trainables.data._phantom.cases import LESIONS, MODALITIES, ORGANS, PLANES, SIDES, SIZES, Case

NUMBERS = ("none", "one", "two", "three", "four")
FINDINGS = ("normal", "mass", "cyst", "fracture", "effusion")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question that was given to a case."""

    case: Case
    question: str
    answer: str
    answer_type: Literal["open", "closed"]
    question_type: str


@dataclass(frozen=True, kw_only=True)
class _Wording:
    """One way to ask a question, with its answers and the cases that it fits."""

    question: str
    question_type: str
    answers: tuple[str, ...]
    answer: Callable[[Case], str]  # gives "" for a case that the question does not fit
    times: int  # how often it is asked with each answer, in the smallest split

    @property
    def answer_type(self) -> Literal["open", "closed"]:
        return "closed" if self.answers == ("yes", "no") else "open"


def ask(cases: Sequence[Case], times: int, bits: Bits) -> list[Asked]:
    """Give questions to the cases of a split: the plan, repeated ``times`` times.

    Each question goes to the case with the fewest questions of its type, and among those to the one
    with the fewest questions at all. No case is asked the same question twice. Questions that fit
    the fewest cases are given out first.
    """
    plan: list[tuple[_Wording, str, list[Case]]] = []
    for wording in _wordings():
        fitting: dict[str, list[Case]] = {answer: [] for answer in wording.answers}
        for case in cases:
            answer = wording.answer(case)
            if answer:
                fitting[answer].append(case)
        for answer in wording.answers * (times * wording.times):
            plan.append((wording, answer, fitting[answer]))
    plan.sort(key=lambda planned: len(planned[2]))

    asked: list[Asked] = []
    of_type: Counter[tuple[str, str]] = Counter()
    of_case: Counter[str] = Counter()
    done: set[tuple[str, str]] = set()
    for wording, answer, fitting_cases in plan:
        question, question_type = wording.question, wording.question_type
        free = [c for c in bits.shuffled(fitting_cases) if (c.image_id, question) not in done]
        case = min(free, key=lambda c: (of_type[c.image_id, question_type], of_case[c.image_id]))
        of_type[case.image_id, question_type] += 1
        of_case[case.image_id] += 1
        done.add((case.image_id, question))
        asked.append(
            Asked(
                case=case,
                question=question,
                answer=answer,
                answer_type=wording.answer_type,
                question_type=question_type,
            )
        )
    return sorted(asked, key=lambda a: (a.case.image_id, a.question))


def words() -> frozenset[str]:
    """All words of the questions and answers."""
    text = " ".join(f"{w.question} {' '.join(w.answers)}" for w in _wordings())
    return frozenset(text.replace("?", " ").split())


def _wordings() -> Iterator[_Wording]:
    """Yield all wordings, topic by topic."""
    yield from _modality()
    yield from _plane()
    yield from _organ()
    yield from _abnormality()
    yield from _presence()
    yield from _side()
    yield from _count()
    yield from _size()
    yield from _brightness()


def _modality() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return case.modality

    for question in (
        "what modality is this?",
        "which imaging modality was used?",
        "how was this image taken?",
    ):
        yield _open(question, "modality", MODALITIES, of, times=2)
    for modality in MODALITIES:
        article = "a" if modality == "ct" else "an"
        yield _closed(f"is this {article} {modality} image?", "modality", of, modality)
        yield _closed(f"was this image taken by {modality}?", "modality", of, modality)


def _plane() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return case.plane

    for question in ("what plane is this?", "in which plane is this slice?"):
        yield _open(question, "plane", PLANES, of, times=2)
    for plane in PLANES:
        article = "an" if plane == "axial" else "a"
        yield _closed(f"is this {article} {plane} slice?", "plane", of, plane)
        yield _closed(f"is the plane {plane}?", "plane", of, plane)


def _organ() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return case.organ

    for question in (
        "what organ is shown?",
        "which part of the body is seen?",
        "what is the main organ in this image?",
    ):
        yield _open(question, "organ", ORGANS, of)
    for organ in ORGANS:
        yield _closed(f"is this the {organ}?", "organ", of, organ)
        yield _closed(f"does this image show the {organ}?", "organ", of, organ)


def _abnormality() -> Iterator[_Wording]:
    def finding(case: Case) -> str:
        return case.finding

    def state(case: Case) -> str:
        return "normal" if case.finding == "normal" else "abnormal"

    for question in ("what is the finding?", "what does this image show?"):
        yield _open(question, "abnormality", FINDINGS, finding)
    for question, true in (
        ("is this image normal?", "normal"),
        ("does this image look normal?", "normal"),
        ("is this image abnormal?", "abnormal"),
        ("is anything abnormal seen?", "abnormal"),
    ):
        yield _closed(question, "abnormality", state, true, times=2)


def _presence() -> Iterator[_Wording]:
    def lesion(case: Case) -> str:
        return {"normal": "no", "mass": "yes", "cyst": "yes"}.get(case.finding, "")

    for question in (
        "is there a lesion?",
        "is a lesion seen?",
        "does this image show a lesion?",
        "are there any lesions?",
    ):
        yield _closed(question, "presence", lesion, "yes", times=2)

    # Asked only where the finding can occur, since elsewhere the organ alone would say no.
    may_be = {
        "mass": lambda case: True,
        "cyst": lambda case: True,
        "fracture": lambda case: case.organ == "knee" and case.modality != "mri",
        "effusion": lambda case: case.organ == "lung",
    }
    for finding, fits in may_be.items():

        def of(case: Case, fits: Callable[[Case], bool] = fits) -> str:
            return case.finding if fits(case) else ""

        article = "an" if finding == "effusion" else "a"
        yield _closed(f"is there {article} {finding}?", "presence", of, finding)
        yield _closed(f"is {article} {finding} seen?", "presence", of, finding)


def _side() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return case.side

    for question in ("which side is the finding on?", "on which side is the finding?"):
        yield _open(question, "side", SIDES, of, times=2)
    for side in ("left", "right"):
        yield _closed(f"is the finding on the {side} side only?", "side", of, side)
        yield _closed(f"is the finding only on the {side}?", "side", of, side)
    yield _closed("are both sides abnormal?", "side", of, "both")
    yield _closed("is the finding on both sides?", "side", of, "both")


def _count() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return NUMBERS[case.count] if case.finding in ("normal", *LESIONS) else ""

    def one_or_more(case: Case) -> str:
        return ("", "one", "more", "more", "more")[case.count]

    for question in ("how many lesions are there?", "how many lesions are seen?"):
        yield _open(question, "count", NUMBERS, of)
    for number in NUMBERS[2:]:
        yield _closed(f"are there {number} lesions?", "count", of, number)
    yield _closed("is there only one lesion?", "count", one_or_more, "one")
    yield _closed("is there more than one lesion?", "count", one_or_more, "more")


def _size() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return case.size if case.count == 1 else ""

    for question in ("how large is the lesion?", "what size is the lesion?"):
        yield _open(question, "size", SIZES, of, times=2)
    for size in SIZES:
        yield _closed(f"is the lesion {size}?", "size", of, size)
        yield _closed(f"is this a {size} lesion?", "size", of, size)


def _brightness() -> Iterator[_Wording]:
    def of(case: Case) -> str:
        return {"mass": "bright", "cyst": "dark"}[case.finding] if case.count == 1 else ""

    for brightness in ("bright", "dark"):
        yield _closed(f"is the lesion {brightness}?", "brightness", of, brightness)
        yield _closed(f"does the lesion look {brightness}?", "brightness", of, brightness)


def _open(
    question: str,
    question_type: str,
    answers: tuple[str, ...],
    of: Callable[[Case], str],
    times: int = 1,
) -> _Wording:
    """An open wording; ``of`` tells the answer for a case."""
    return _Wording(
        question=question, question_type=question_type, answers=answers, answer=of, times=times
    )


def _closed(
    question: str, question_type: str, of: Callable[[Case], str], true: str, times: int = 1
) -> _Wording:
    """A yes-no wording: yes if ``of`` gives ``true`` for a case."""

    def answer(case: Case) -> str:
        value = of(case)
        return "" if not value else "yes" if value == true else "no"

    return _Wording(
        question=question, question_type=question_type, answers=("yes", "no"), answer=answer,
        times=times,
    )  # fmt: skip
