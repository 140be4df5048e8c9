"""Random search (Bergstra & Bengio 2012): each point is independent of all others."""

from __future__ import annotations

from study.search.searchers.common.known_trials import Past, Point


def point(past: Past, arm: str) -> Point:
    """The next point of ``arm``."""
    return past.random(arm)
