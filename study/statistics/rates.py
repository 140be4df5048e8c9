"""What a count of seeds says of a rate, such as how often an arm's training collapses."""

from __future__ import annotations

from study.statistics.score_types import Estimate
from study.statistics.uncertainty import LEVEL

OUTSIDE = 1 - LEVEL / 100
"""Probability that a rate is outside of its bounds."""


def exact_rate(events: int, of: int) -> Estimate:
    """Rate in percent at which ``events`` happened, with its exact bounds (Clopper and Pearson
    1934, doi 10.1093/biomet/26.4.404).

    If it happened never or always, the interval is one-sided, with all of the 5% at its other end:
    0 of 3 are compatible with up to 63%. Since the outcome decides on which side the 5% are, a rate
    lies within its bounds in 95% of studies of up to four seeds, and in 92.5% at least of larger
    ones, whatever the rate is.
    """
    from scipy.stats import beta

    tail = OUTSIDE if events in (0, of) else OUTSIDE / 2
    low = beta.ppf(tail, events, of - events + 1) if events else 0.0
    high = beta.ppf(1 - tail, events + 1, of - events) if events < of else 1.0
    return Estimate(mean=100 * events / of, low=100 * float(low), high=100 * float(high))
