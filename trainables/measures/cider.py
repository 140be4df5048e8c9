"""CIDEr of reports (Vedantam et al. 2015, arXiv 1411.5726)."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.reports import cleaned


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """CIDEr in percent, where CIDEr itself usually ranges from 0 to 10.

    It weighs words by how rare they are in the true reports, so it is not a mean over scores of
    single reports.
    """
    from pycocoevalcap.cider.cider import Cider

    given, true = cleaned(predicted, examples)
    value, _ = Cider().compute_score(true, given)
    return {"cider": 100 * float(value)}


MEASURE = Measure(
    of="report", columns={"cider": Column(title="CIDEr %", of="reports")}, score=score
)
