"""ROUGE-L of reports (Lin 2004, aclanthology.org/W04-1013): by longest common subsequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.reports import rouge_l


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean ROUGE-L of the reports, in percent."""
    pairs = zip(predicted, examples, strict=True)
    return {"rouge_l": 100 * float(np.mean([rouge_l(p, example.answer) for p, example in pairs]))}


# No title: tables show the same number as ``report`` of the measure ``accuracy``.
MEASURE = Measure(of="report", columns={"rouge_l": Column(of="reports")}, score=score)
