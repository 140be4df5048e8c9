"""Accuracy of answers, as it is counted for the medical sets: exact match of normalised answers.

Open and closed questions are always told apart: a model that only ever says "yes" looks good in
one number. Every score is to be read beside ``majority_baseline``.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainables.data.dataset import AnswerType, Example

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_NEARLY_CONSTANT = 0.95


def normalize(answer: str) -> str:
    """An answer in the form in which answers are compared.

    As in the official evaluation of VQA (Antol et al., "VQA: Visual Question Answering", ICCV 2015;
    ``PythonEvaluationTools/vqaEvaluation/vqaEval.py`` of github.com/GT-Vision-Lab/VQA): lower case,
    no punctuation (but points within numbers), number words as digits, no articles. Its table of
    contractions makes "dont" equal "don't"; here apostrophes are dropped, which does the same. A
    punctuation mark always parts words here; there it joins them if the text happens to have the
    same mark beside a blank elsewhere.

    >>> normalize("The X-ray, of two lungs.")
    'x ray of 2 lungs'
    """
    text = answer.lower().replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 1,000
    text = re.sub(r"\.(?!\d)", "", text)  # 3.5 stays
    text = re.sub(r"[][;/\"{}()=+\\_\-><@`,?!]", " ", text)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def correct(predicted: str, answer: str) -> bool:
    """Whether two answers are the same once normalised."""
    return normalize(predicted) == normalize(answer)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How many questions were answered correctly. Accuracies are percentages, nan for none."""

    open_correct: int
    open_total: int
    closed_correct: int
    closed_total: int

    @property
    def open(self) -> float:
        """Accuracy of open questions in percent."""
        return _percent(self.open_correct, self.open_total)

    @property
    def closed(self) -> float:
        """Accuracy of closed questions in percent."""
        return _percent(self.closed_correct, self.closed_total)

    @property
    def overall(self) -> float:
        """Accuracy of all questions in percent."""
        return _percent(
            self.open_correct + self.closed_correct, self.open_total + self.closed_total
        )


def score(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Score one prediction for each example.

    Raises:
        ValueError: there are more or fewer predictions than examples.
    """
    right: Counter[AnswerType] = Counter()
    total: Counter[AnswerType] = Counter()
    for example, predicted in zip(examples, predictions, strict=True):
        total[example.answer_type] += 1
        right[example.answer_type] += correct(predicted, example.answer)
    return Scores(
        open_correct=right["open"],
        open_total=total["open"],
        closed_correct=right["closed"],
        closed_total=total["closed"],
    )


def majority_answers(train: Iterable[Example]) -> dict[AnswerType, str]:
    """The most frequent answer (normalised) of each answer type; of equals, the first by letter."""
    counts = _counts((e.answer_type, e.answer) for e in train)
    return {kind: min(c, key=lambda answer: (-c[answer], answer)) for kind, c in counts.items()}


def majority_baseline(train: Iterable[Example], test: Sequence[Example]) -> Scores:
    """The score of who knows the answer type of a question and nothing else."""
    answers = majority_answers(train)
    return score(test, [answers.get(example.answer_type, "") for example in test])


def collapsed(examples: Sequence[Example], predictions: Sequence[str]) -> bool:
    """Whether a model has stopped looking: it gives (nearly) one answer to each type of question.

    Nearly is 95 %. Types whose true answers are just as constant say nothing and are passed over;
    where all are, the answer is no.
    """
    true = _counts((e.answer_type, e.answer) for e in examples)
    given = _counts(
        (e.answer_type, predicted) for e, predicted in zip(examples, predictions, strict=True)
    )
    telling = [kind for kind in true if not _nearly_constant(true[kind])]
    return bool(telling) and all(_nearly_constant(given[kind]) for kind in telling)


def _counts(answers: Iterable[tuple[AnswerType, str]]) -> Mapping[AnswerType, Counter[str]]:
    counts: defaultdict[AnswerType, Counter[str]] = defaultdict(Counter)
    for kind, answer in answers:
        counts[kind][normalize(answer)] += 1
    return counts


def _nearly_constant(counts: Counter[str]) -> bool:
    return max(counts.values()) >= _NEARLY_CONSTANT * counts.total()


def _percent(right: int, total: int) -> float:
    return 100 * right / total if total else math.nan
