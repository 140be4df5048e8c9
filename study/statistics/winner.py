"""Estimate and interval of the best of several arms that allow for its having been chosen.

The highest of many scores is mostly too high: it was chosen for its errors as well. Its
distribution is that of its score given that no other is higher, a truncated normal one. An interval
of quantiles of that holds the truth as often as it says, but has no finite end where arms are
close. The hybrid of Andrews, Kitagawa and McCloskey (2024, *Inference on Winners*, Quarterly
Journal of Economics 139(1), doi 10.1093/qje/qjad043, section 4) always has finite ends: it also
supposes that the truth is within the simultaneous interval of all arms, which is missed in ``BETA``
of all studies, and gives the rest of its level to the quantiles. Its estimate is the truth by which
the score would as often be higher as lower, so that it is too high in half of all studies.

Variances are taken as known and widened by Student's t. Two or three seeds know them too badly for
that, so ``Scores.best`` does not let the upper end be below that of the plain interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ALPHA = 0.05
"""Share of studies whose interval may miss the truth."""
BETA = ALPHA / 10
"""Share of studies whose simultaneous interval may miss the truth, as the authors recommend."""
DRAWS = 20_000
"""Draws of the largest of all arms' errors."""
STEPS = 60
"""Halvings in the search for a quantile."""


def of_best(scores_A: Array, covariance_AA: Array, free: float) -> tuple[float, float, float]:
    """Estimate and ends of the interval of the truth of the highest score.

    Args:
        scores_A: score of each arm, in any unit; shape (A,).
        covariance_AA: covariance of the scores' errors, in its square; shape (A, A).
        free: degrees of freedom with which the best arm's own variance is known.
    """
    from scipy.stats import norm, t

    best = int(np.argmax(scores_A))
    # A variance of few degrees of freedom: as much wider as Student's t is at this level.
    wider = float(t.ppf(1 - ALPHA / 2, min(free, 1e9)) / norm.ppf(1 - ALPHA / 2))
    covariance_AA = covariance_AA * wider**2
    sd, score = float(np.sqrt(covariance_AA[best, best])), float(scores_A[best])
    if sd <= 0:
        return score, score, score
    most = _simultaneous(covariance_AA) * sd
    low, high = _others(scores_A, covariance_AA, best)

    def above(truth: float) -> float:
        """Probability that the score is below the one that was found, if it is the highest."""
        from scipy.special import ndtr

        ends = np.clip([low, score, high], truth - most, truth + most)
        first, found, last = ndtr((ends - truth) / sd)
        return float((found - first) / (last - first)) if last > first else float(score > ends[0])

    level = (ALPHA - BETA) / (1 - BETA)
    return (
        _solve(above, 0.5, score - most, score + most),
        _solve(above, 1 - level / 2, score - most, score + most),
        _solve(above, level / 2, score - most, score + most),
    )


def _simultaneous(covariance_AA: Array) -> float:
    """Standard deviations within which all arms' errors are together in all but ``BETA`` of
    studies."""
    deviations_A = np.sqrt(np.diag(covariance_AA))
    known = deviations_A > 0
    correlation = (covariance_AA / np.outer(deviations_A, deviations_A).clip(1e-300))[known][
        :, known
    ]
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn = np.random.default_rng(2).standard_normal((DRAWS, len(root))) @ root.T
    return float(np.quantile(np.abs(drawn).max(axis=1), 1 - BETA))


def _others(scores_A: Array, covariance_AA: Array, best: int) -> tuple[float, float]:
    """Scores between which the best arm's stays the highest, if what is independent of it in the
    others is as it was found."""
    low, high = -np.inf, np.inf
    for other in range(len(scores_A)):
        share = covariance_AA[other, best] / covariance_AA[best, best]
        if other == best or abs(share - 1) < 1e-9:
            continue
        end = (scores_A[other] - share * scores_A[best]) / (1 - share)
        low, high = (max(low, end), high) if share < 1 else (low, min(high, end))
    return low, high


def _solve(falling: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Argument between ``low`` and ``high`` at which a falling function has a value."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return (low + high) / 2
