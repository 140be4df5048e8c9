"""Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna, over an arm's own trials.

TPE selects the best of all trials as the good ones before it looks at their parameters, and an arm
that is behind would have none among them; so an arm's parameters are drawn from its own trials
only. A pruned trial ranks behind those that got further.
"""

from __future__ import annotations

from study.search.searchers.common.known_trials import Past, Point


def point(past: Past, arm: str) -> Point:
    """The next point of ``arm``; its first points are spread over its ranges."""
    first = past.first(arm)
    if first is not None:
        return first
    return past.drawn_by(past.tpe, past.ranges(arm), past.of_arm(arm))
