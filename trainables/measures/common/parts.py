"""Parts of a split that are scored separately, and the score of a single answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from trainables.data.common.dataset import AnswerType, Example
from trainables.measures.common.normalize import correct, normalize
from trainables.measures.common.options import named, true_option
from trainables.measures.common.reports import rouge_l

PARTS = ("overall", "open", "closed", "yes_no", "other", "report")
"""Names of the parts of a split. Open and closed questions are as the dataset says. MILE instead
calls those questions closed whose answer is yes or no (``yes_no``) and the rest open (``other``).
Reports are neither."""
CHOICE = "choice"
"""Name of the part that has the questions with options, of any type. It has an interval, and arms
are not compared on it."""


def part_of(part: str, examples: Sequence[Example]) -> NDArray[np.bool_]:
    """Which examples belong to a part; bool of shape (Q,)."""
    if part == "overall":
        return np.ones(len(examples), bool)
    if part == CHOICE:
        return np.array([bool(example.options) for example in examples], bool)
    if part in get_args(AnswerType):
        return np.array([example.answer_type == part for example in examples], bool)
    yes_no = np.array([normalize(example.answer) in ("yes", "no") for example in examples], bool)
    return yes_no if part == "yes_no" else ~(yes_no | part_of("report", examples))


def answer_score(predicted: str, example: Example) -> float:
    """Score of one answer, from 0 to 1: exact match for a question, or the right option if it has
    some; ROUGE-L for a report."""
    if example.answer_type == "report":
        return rouge_l(predicted, example.answer)
    return float(is_right(predicted, example))


def is_right(predicted: str, example: Example) -> bool:
    """Whether an answer is the true one: equal once normalised or, of a question with options, the
    name of the right one."""
    if example.options:
        return named(predicted, example) == true_option(example)
    return correct(predicted, example.answer)
