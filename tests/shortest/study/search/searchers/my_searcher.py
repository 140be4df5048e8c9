"""Best of two: of two random points, the one at the lower learning rate."""

from __future__ import annotations

from study.search.searchers.common.known_trials import Past, Point


def point(past: Past, arm: str) -> Point:
    """The next point of ``arm``."""
    one, other = past.random(arm), past.random(arm)
    return min(one, other, key=lambda drawn: float(drawn.get(f"{arm}/lr", 0.0)))
