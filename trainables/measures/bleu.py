"""BLEU of reports (Papineni et al. 2002, doi 10.3115/1073083.1073135)."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure
from trainables.measures.common.reports import cleaned


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 in percent, over all reports together: not a mean over single reports."""
    from pycocoevalcap.bleu.bleu import Bleu

    given, true = cleaned(predicted, examples)
    values, _ = Bleu(4).compute_score(true, given, verbose=0)
    return {f"bleu_{n}": 100 * float(value) for n, value in enumerate(values, start=1)}


MEASURE = Measure(
    of="report",
    columns={
        **{f"bleu_{n}": Column(of="reports") for n in (1, 2, 3)},
        "bleu_4": Column(title="BLEU-4 %", of="reports"),
    },
    score=score,
)
