"""Names of searchers and of rules of early stopping, which are files of ``study/search``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from search_spaces.declare import Choice, Space
from study.config import spaces
from trainables.errors import BadInput, unknown
from trainables.registry import Registry

SEARCHERS = Registry("value of --search", "study.search.searchers", "point")
"""Searchers that the project has."""
OPTUNA = (
    "BruteForceSampler",
    "GPSampler",
    "NSGAIIISampler",
    "NSGAIISampler",
    "QMCSampler",
    "RandomSampler",
    "TPESampler",
)
"""Samplers of Optuna that are searchers too, by the names of their classes."""
OTHERS = {
    "CmaEsSampler": "it keeps a state between draws, which a study that goes on later has not; "
    "--search cmaes is the same method without one",
    "GridSampler": "it wants a list of values for each range; --search grid makes an even one",
    "PartialFixedSampler": "it gives parameters fixed values, as --set NAME=VALUE does",
}
"""Optuna's other samplers -> why they are no searchers."""
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
        self, arm: str, trial: str, level: int, loss: float, costs: tuple[float, ...] = ()
    ) -> bool:
        """Record a trial's validation loss at the rung ``level``, in examples, and its ``costs`` if
        they are objectives. Return whether the trial goes on. A rung that is reported again counts
        once. Trials whose batches differ in size report one rung at slightly different numbers of
        examples."""
        ...


SEVERAL_OBJECTIVES = ("grid", "random", "tpe", *(n for n in OPTUNA if n != "GPSampler"))
"""Searchers that can be used where costs are minimised beside the loss: they know of these, or
learn nothing."""


def parse_searcher(asked: str, objectives: Sequence[str]) -> str:
    """Name of the searcher that is asked for; ``auto`` is TPE where costs are minimised too.

    Raises:
        BadInput: there is no such searcher, or it knows the loss alone and there are costs.
    """
    if asked == AUTO:
        return OLDEST[0] if objectives else SEARCH
    check_searcher(asked)
    if objectives and asked not in SEVERAL_OBJECTIVES:
        raise BadInput(
            f"--search {asked} knows the loss alone, and --objective asks for more; give one of: "
            f"{', '.join(SEVERAL_OBJECTIVES)}"
        )
    return asked


def check_searcher(name: str) -> None:
    """Raise ``BadInput`` if there is no searcher of this name."""
    if name in OTHERS:
        raise BadInput(f"--search {name} can't be done here: {OTHERS[name]}")
    if name not in (*SEARCHERS.names(), *OPTUNA):
        raise unknown("value of --search", name, (*SEARCHERS.names(), *OPTUNA))


def check_space(search: str, space: Space) -> None:
    """Check that a searcher can draw points of a space.

    Raises:
        BadInput: it goes through all points, and an arm has a continuous range.
    """
    if search != "BruteForceSampler":
        return
    for arm, declared in space.arms.items():
        for name, values in spaces.ranges(declared).items():
            if not isinstance(values, Choice):
                raise BadInput(
                    f"--search {search} goes through all points, but {name} of arm {arm!r} is a "
                    f"continuous range; list its values (--set {name}=0.001,0.01), or give "
                    "--search grid"
                )


def check_stopper(name: str) -> None:
    """Raise ``BadInput`` if there is no stopper of this name."""
    if name not in STOPPERS.names():
        raise unknown("value of --stop", name, STOPPERS.names())


def passing(name: str, reduction: int) -> float:
    """Share of an arm's trials that go on at a rung by the stopper ``name``, roughly."""
    check_stopper(name)
    return float(STOPPERS.find(name).passing(reduction))


def stopper(name: str, reduction: int) -> Stopper:
    """A stopper that has seen nothing, for rungs that are a factor ``reduction`` apart.

    Raises:
        BadInput: there is no such stopper.
    """
    check_stopper(name)
    made: Stopper = STOPPERS.find(name).Stopper(reduction)
    return made
