"""Variances of several arms between their seeds, each moderated by those of the others.

Three seeds say little of a variance: two arms of three seeds have four degrees of freedom, and one
interval may be a few points wide and another one fifty. Arms of one study mostly vary alike between
seeds, and how much alike can be estimated from the variances themselves. So each is taken to lie
between its own estimate and one that all arms share, as is done for genes, of which there are as
few samples (Smyth 2004, *Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments*, doi 10.2202/1544-6115.1027, section 6.2).

An arm whose seeds are further apart than those of the others by more than chance explains keeps its
own variance, and the others do not borrow from it (as Phipson et al. 2016, doi
10.1214/16-AOAS920, do in a smoother way).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FEWEST = 5
"""Smallest number of arms of two seeds or more whose variances moderate each other."""
ALIKE = 0.9
"""An arm keeps its own variance if that is above this quantile of the variances that the common one
leads to expect."""


@dataclass(frozen=True, kw_only=True)
class Moderated:
    """Variance between the seeds of one arm."""

    variance: float
    borrowed: float = 0.0
    """Degrees of freedom that other arms add to the arm's own."""


def moderate(variances: Sequence[float], freedoms: Sequence[int]) -> list[Moderated]:
    """Moderate the variances of some arms. They stay as they are if fewer than ``FEWEST`` arms have
    one.

    Args:
        variances: variance between the seeds of each arm.
        freedoms: degrees of freedom of each, its number of seeds less one; 0: it has no variance.
    """
    from scipy.stats import f

    own = [Moderated(variance=variance) for variance in variances]
    alike = [arm for arm, freedom in enumerate(freedoms) if freedom > 0]
    for _ in range(2):
        if len(alike) < FEWEST:
            return own
        common, borrowed = _common(
            np.array([variances[arm] for arm in alike]), np.array([freedoms[arm] for arm in alike])
        )
        # Once without those that are unlike the rest, which made the rest look less alike.
        alike = [
            arm
            for arm in alike
            if variances[arm] <= common * f.ppf(ALIKE, freedoms[arm], min(borrowed, 1e9))
        ]
    for arm in alike:
        share = 1.0 if np.isinf(borrowed) else borrowed / (borrowed + freedoms[arm])
        variance = share * common + (1 - share) * variances[arm]
        own[arm] = Moderated(variance=variance, borrowed=borrowed)
    return own


def _common(variance_A: Array, freedom_A: Array) -> tuple[float, float]:
    """Variance of a typical arm, and the degrees of freedom that it adds to each arm's own: by the
    mean and the variance of the logarithms of the arms' variances."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    if not variance_A.any():
        return 0.0, float("inf")
    # The logarithm of 0 would decide everything; limma, the author's own package, raises it too.
    variance_A = np.maximum(variance_A, 1e-5 * np.median(variance_A[variance_A > 0]))
    above_A = np.log(variance_A) - digamma(freedom_A / 2) + np.log(freedom_A / 2)
    spread = float(above_A.var(ddof=1) - polygamma(1, freedom_A / 2).mean())
    if spread <= 0:
        return float(np.exp(above_A.mean())), float("inf")
    half = float(brentq(lambda x: float(polygamma(1, x)) - spread, 1e-4, 1e6))
    return float(np.exp(above_A.mean() + digamma(half) - np.log(half))), 2 * half
