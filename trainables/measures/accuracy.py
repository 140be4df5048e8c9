"""Accuracy as usual for medical datasets: exact match of normalised answers.

Reports are never matched exactly; their score is their ROUGE-L. Open and closed questions are
always scored separately as well, since a model that only ever says "yes" looks good in one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.parts import answer_score, part_of


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean score of the answers in each part of a split, in percent.

    It is the accuracy where there are no reports, and nan for a part without examples.
    """
    earned_Q = np.array([answer_score(p, e) for p, e in zip(predicted, examples, strict=True)])
    return {part: 100 * _mean(earned_Q[part_of(part, examples)]) for part in MEASURE.columns}


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


MEASURE = Measure(
    of="all",
    columns={
        "overall": Column(title="overall %"),
        "open": Column(title="open %"),
        "closed": Column(title="closed %"),
        "yes_no": Column(),
        "other": Column(),
        "report": Column(title="ROUGE-L %", of="reports"),
    },
    score=score,
)
