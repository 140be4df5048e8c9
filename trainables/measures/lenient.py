"""Accuracy by a lenient rule: an answer counts by its first words.

Arms are compared by the strict rule alone (``accuracy``). These numbers are for models that answer
in sentences, above all the untuned one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.lenient import lenient_score
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.parts import part_of

PARTS = ("overall", "open", "closed")
"""Parts of a split that are scored by both rules."""


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean credit of the answers in each part of a split, in percent; nan for a part without
    examples."""
    earned_Q = np.array([lenient_score(p, e) for p, e in zip(predicted, examples, strict=True)])
    found = {}
    for part in PARTS:
        earned = earned_Q[part_of(part, examples)]
        found[f"lenient_{part}"] = 100 * float(earned.mean()) if len(earned) else math.nan
    return found


MEASURE = Measure(
    of="all", columns={f"lenient_{part}": Column(decides=False) for part in PARTS}, score=score
)
