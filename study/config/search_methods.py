"""Names of searchers and of rules of early stopping, which are files of ``study/search``."""

from __future__ import annotations

from typing import Protocol

from trainables.errors import unknown
from trainables.registry import Registry

SEARCHERS = Registry("value of --search", "study.search.searchers", "point")
"""Searchers that the project has."""
OPTUNA = ("GPSampler", "QMCSampler", "RandomSampler", "TPESampler")
"""Samplers of Optuna that are searchers too, by the names of their classes."""
STOPPERS = Registry("value of --stop", "study.search.stoppers", "Stopper")
"""Rules of early stopping."""

AUTO = "auto"
"""Value of both options that leaves it to the project."""
SEARCH, STOP = "gp", "median"
"""Searcher and stopper of a study that begins with ``AUTO``."""
OLDEST = ("tpe", "asha")
"""Searcher and stopper of studies that are older than the choice of one."""


class Stopper(Protocol):
    """A rule of early stopping."""

    def record(
        self, arm: str, trial: str, examples_seen: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Record a trial's validation loss at a rung, and its ``costs`` if they are objectives.
        Return whether the trial goes on. A rung that is reported again counts once."""
        ...


def check_searcher(name: str) -> None:
    """Raise ``BadInput`` if there is no searcher of this name."""
    if name not in (*SEARCHERS.names(), *OPTUNA):
        raise unknown("value of --search", name, (*SEARCHERS.names(), *OPTUNA))


def check_stopper(name: str) -> None:
    """Raise ``BadInput`` if there is no stopper of this name."""
    if name not in STOPPERS.names():
        raise unknown("value of --stop", name, STOPPERS.names())


def stopper(name: str, reduction: int) -> Stopper:
    """A stopper that has seen nothing, for rungs that are a factor ``reduction`` apart.

    Raises:
        BadInput: there is no such stopper.
    """
    check_stopper(name)
    made: Stopper = STOPPERS.find(name).Stopper(reduction)
    return made
