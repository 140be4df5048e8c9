"""Scores and differences of arms over repeated splits of one dataset.

Each split divides the same data into training, validation and test questions, and in each an arm is
searched and confirmed anew. Test sets of two splits share questions and training sets share images,
so that scores of splits go together, and their variance is too small for the mean's. The corrected
resampled t-test (Nadeau and Bengio 2003, "Inference for the Generalization Error", doi
10.1023/A:1024068626366) takes ``1/K + n_test/n_train`` times the variance between K splits for that
of their mean, with K - 1 degrees of freedom.

That leaves out that training sets share more images than test sets do. ``python -m
tests.benchmarks.splits`` measures what it does: where scores depend on which images were trained
on by two points, equal arms are told apart in more than 5% of studies. So differences over splits
are described, with these intervals, and no arm is called better (``Claim.SPLITS``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.statistics.power import POWER
from study.statistics.score_types import Estimate
from study.statistics.uncertainty import LEVEL

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class OverSplits:
    """A mean over splits, in percent or percentage points."""

    estimate: Estimate
    p: float
    """Two-sided p-value of the mean being zero."""
    own_share: float
    """Share of the mean's variance that more splits of the same data could remove; 0 to 1."""


def over_splits(
    values_K: Array, tested_per_trained: float, *, least: float = -100.0, most: float = 100.0
) -> OverSplits:
    """Mean over splits with its interval, by the corrected resampled t-test.

    Args:
        values_K: value of each split, in percent or percentage points; shape (K,), K at least 2.
        tested_per_trained: test questions for each training question.
        least: lowest value that there can be.
        most: highest value that there can be.
    """
    from scipy import stats

    count, mean = len(values_K), float(values_K.mean())
    error = math.sqrt((1 / count + tested_per_trained) * float(values_K.var(ddof=1)))
    reach = float(stats.t.ppf(0.5 + LEVEL / 200, count - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return OverSplits(
        estimate=Estimate(mean=mean, low=max(mean - reach, least), high=min(mean + reach, most)),
        p=p,
        own_share=1 / (1 + count * tested_per_trained),
    )


def smallest_over_splits(variance: float, splits: int, tested_per_trained: float) -> float:
    """True difference, in percentage points, of which the interval of ``over_splits`` leaves out
    zero in a share ``POWER`` of all studies, by quantiles of Student's t.

    Args:
        variance: variance of the difference in one split, for scores as fractions.
        splits: number of splits, 2 at least.
        tested_per_trained: test questions for each training question. Splits are taken to correlate
            by the share that test questions are of both, as ``over_splits`` does.
    """
    from scipy.special import stdtrit

    free = splits - 1
    far = float(stdtrit(free, 0.5 + LEVEL / 200) + stdtrit(free, POWER))
    between = variance / (1 + tested_per_trained)
    return 100 * far * math.sqrt((1 / splits + tested_per_trained) * between)
