"""Baselines for scores: the most frequent answers, and whether a model ignores its images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from trainables.data.common.dataset import Example
from trainables.data.common.multiple_choice import written
from trainables.data.common.wording import LETTERS
from trainables.measures.common.normalize import normalize
from trainables.measures.common.options import named
from trainables.measures.common.reports import clean
from trainables.measures.common.scores import score

OPTIONS = "options"
"""What stands for the answer type of a question with options."""
_NEARLY_CONSTANT = 0.95


def majority_answers(train: Iterable[Example]) -> dict[str, str]:
    """The most frequent answer of each answer type, normalised; a report is cleaned. Of questions
    with ``OPTIONS`` it is the most frequent letter.

    Of equally frequent answers, the alphabetically first is taken.
    """
    counts = _counts((e, e.answer) for e in train)
    return {kind: min(c, key=lambda answer: (-c[answer], answer)) for kind, c in counts.items()}


def majority_baseline(train: Iterable[Example], test: Sequence[Example]) -> dict[str, float]:
    """Scores on ``test`` of always giving the most frequent training answer of the answer type."""
    return score(test, majority_predictions(train, test))


def majority_predictions(train: Iterable[Example], test: Sequence[Example]) -> list[str]:
    """The most frequent training answer of each test question's answer type."""
    answers = majority_answers(train)

    def answer(example: Example) -> str:
        found = answers.get(_kind(example), "")
        if not example.options:
            return found
        _, ways = written(example.answer, example.options)
        return dict(zip(LETTERS, ways, strict=False)).get(found, "")

    return [answer(example) for example in test]


def has_collapsed(examples: Sequence[Example], predictions: Sequence[str]) -> bool:
    """Whether a model has collapsed: it gives (nearly) one answer to each type of question.

    Nearly means 95 % of the answers. Types whose true answers are just as constant say nothing and
    are left out; if that leaves none, the result is False.
    """
    true = _counts((e, e.answer) for e in examples)
    given = _counts(zip(examples, predictions, strict=True))
    telling = [kind for kind in true if not _nearly_constant(true[kind])]
    return bool(telling) and all(_nearly_constant(given[kind]) for kind in telling)


def _counts(answers: Iterable[tuple[Example, str]]) -> Mapping[str, Counter[str]]:
    """How often each answer, normalised or cleaned, occurs in each answer type; of questions with
    options, how often each letter does."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example, answer in answers:
        kind = _kind(example)
        if kind == OPTIONS:
            place = named(answer, example)
            counts[kind]["" if place is None else LETTERS[place]] += 1
        else:
            counts[kind][clean(answer) if kind == "report" else normalize(answer)] += 1
    return counts


def _kind(example: Example) -> str:
    """The answer type of a question, or that it has options."""
    return OPTIONS if example.options else example.answer_type


def _nearly_constant(counts: Counter[str]) -> bool:
    return max(counts.values()) >= _NEARLY_CONSTANT * counts.total()
