"""my_measure: how long the answers are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean number of words of the answers."""
    return {"my_words": float(np.mean([len(answer.split()) for answer in predicted]))}


MEASURE = Measure(
    of="all", columns={"my_words": Column(title="words an answer", unit="words")}, score=score
)
