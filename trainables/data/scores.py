"""Accuracy of answers, as it is counted for the medical sets: exact match of normalised answers.
Reports are never matched; what they earn is their ROUGE-L, see ``trainables.data.reports``.

Open and closed questions are always told apart: a model that only ever says "yes" looks good in
one number. Every score is to be read beside ``majority_baseline``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from trainables.data import reports
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
    same mark beside a blank elsewhere. Letters lose their accents, which a model whose tokens have
    none cannot write.

    >>> normalize("The X-ray, of two lungs.")
    'x ray of 2 lungs'
    >>> normalize("Sj\u00f6gren's")
    'sjogrens'
    """
    marked = unicodedata.normalize("NFD", answer.lower())
    text = "".join(letter for letter in marked if not unicodedata.combining(letter))
    text = text.replace("'", "").replace("\u2019", "")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 1,000
    text = re.sub(r"\.(?!\d)", "", text)  # 3.5 stays
    text = re.sub(r"[][;/\"{}()=+\\_\-><@`,?!]", " ", text)
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(word for word in words if word not in _ARTICLES)


def correct(predicted: str, answer: str) -> bool:
    """Whether two answers are the same once normalised."""
    return normalize(predicted) == normalize(answer)


def credit(predicted: str, example: Example) -> float:
    """What an answer earns, 0 to 1: all or nothing for a question, ROUGE-L for a report."""
    if example.answer_type == "report":
        return reports.rouge_l(predicted, example.answer)
    return float(correct(predicted, example.answer))


def token_overlap(predicted: str, answer: str) -> tuple[float, float]:
    """(recall, F1) in percent of an answer's different words, as LLaVA-Med counts open answers.

    (Li et al. 2023, arXiv 2306.00890, section 5.2; ``llava/eval/run_eval.py`` of
    github.com/microsoft/LLaVA-Med.) An answer that is empty once normalised is right if the
    prediction is empty too.
    """
    given, true = set(normalize(predicted).split()), set(normalize(answer).split())
    if not given or not true:
        same = 100.0 * (given == true)
        return same, same
    both = len(given & true)
    return 100 * both / len(true), 200 * both / (len(given) + len(true))


PARTS = ("overall", "open", "closed", "yes_no", "other", "report")
"""Of a split. Open and closed as the dataset says; MILE calls those closed whose answer is yes or
no, and the others open. Reports are neither."""


def part_of(part: str, examples: Sequence[Example]) -> NDArray[np.bool_]:
    """Which examples belong to a part; shape (Q,)."""
    if part == "overall":
        return np.ones(len(examples), bool)
    if part in get_args(AnswerType):
        return np.array([example.answer_type == part for example in examples], bool)
    yes_no = np.array([normalize(example.answer) in ("yes", "no") for example in examples], bool)
    return yes_no if part == "yes_no" else ~(yes_no | part_of("report", examples))


def score(examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
    """Percentages by name, nan for parts without a question: of each of ``PARTS`` what its answers
    earn on average, which is the accuracy where there are no reports; ``token_recall`` and
    ``token_f1``, means over the open questions. If there are reports, also their
    ``reports.MEASURES``.

    Raises:
        ValueError: there are more or fewer predictions than examples.
    """
    pairs = list(zip(predictions, examples, strict=True))
    earned = np.array([credit(*pair) for pair in pairs])
    overlap = np.array([token_overlap(p, e.answer) for p, e in pairs]).reshape(-1, 2)
    opened = part_of("open", examples)
    found = {
        **{part: 100 * _mean(earned[part_of(part, examples)]) for part in PARTS},
        "token_recall": _mean(overlap[opened, 0]),
        "token_f1": _mean(overlap[opened, 1]),
    }
    written = [(p, e.answer) for p, e in pairs if e.answer_type == "report"]
    return found | (reports.score(*zip(*written, strict=True)) if written else {})


def shown(scores: Mapping[str, float]) -> dict[str, str]:
    """Which measures a table has room for, with their titles: it follows from what was asked."""
    questions = {"overall": "overall %", "open": "open %", "closed": "closed %"}
    written = {"report": "ROUGE-L %", "bleu_4": "BLEU-4 %", "cider": "CIDEr %"}
    if not math.isnan(scores.get("observations_f1", math.nan)):
        written["observations_f1"] = "observations F1 %"
    if "cider" not in scores:
        return questions
    only_reports = math.isnan(scores["other"]) and math.isnan(scores["yes_no"])
    return written if only_reports else questions | written


def majority_answers(train: Iterable[Example]) -> dict[AnswerType, str]:
    """The most frequent answer (normalised, a report cleaned) of each answer type; of equals, the
    first by letter."""
    counts = _counts((e.answer_type, e.answer) for e in train)
    return {kind: min(c, key=lambda answer: (-c[answer], answer)) for kind, c in counts.items()}


def majority_baseline(train: Iterable[Example], test: Sequence[Example]) -> dict[str, float]:
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
        counts[kind][reports.clean(answer) if kind == "report" else normalize(answer)] += 1
    return counts


def _nearly_constant(counts: Counter[str]) -> bool:
    return max(counts.values()) >= _NEARLY_CONSTANT * counts.total()


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan
