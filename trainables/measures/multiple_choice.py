"""Accuracy of multiple-choice questions: how many answers name the option that is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.options import named, true_option


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Share of answers that name the right option, and of those that name any, in percent."""
    chosen = [named(answer, example) for answer, example in zip(predicted, examples, strict=True)]
    right = [place == true_option(e) for place, e in zip(chosen, examples, strict=True)]
    some = [place is not None for place in chosen]
    return {"choice": 100 * float(np.mean(right)), "named_option": 100 * float(np.mean(some))}


MEASURE = Measure(
    of="options",
    columns={
        "choice": Column(title="choice %", of="options"),
        "named_option": Column(of="options"),
    },
    score=score,
)
