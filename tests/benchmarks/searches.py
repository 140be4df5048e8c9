"""Pools of searches of one arm, of which made-up studies take one for each of their arms.

A search is played by the project's own scheduler on a surface whose best is known (``surfaces``),
by the default searcher and rule of early stopping; nothing is trained. A study of many arms takes
its searches from one pool, so that its arms are equal when each is tuned to its end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces.declare import Space
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.gain import RemainingGain
from tests.benchmarks.searchers import memory_folder, run_trial
from tests.benchmarks.surfaces import Surface

AFTER = (6, 12, 24)
"""Numbers of trials of the arm after which a search is looked at."""
POINTS = 80.0
"""Points of accuracy for a validation loss lower by 1; see ``allocation``."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search of one arm found, in points of accuracy."""

    lost: float
    """Accuracy of the arm's best settings less that of the settings that were found."""
    said: RemainingGain | None
    """What more search was said to bring."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Search:
        """What ``dataclasses.asdict`` made of one."""
        said = plain["said"]
        return cls(lost=plain["lost"], said=RemainingGain(**said) if said else None)


def play(surface: Surface, repetition: int, after: Sequence[int] = AFTER) -> list[Search]:
    """Play one search, and look at it after so many trials."""
    rules = SearchRules(
        space=Space(question="?", arms={"arm": surface.arm}),
        budget=replace(surface.budget, trials=after[-1]),
        slots=("vision", "fusion", "decoder"),
        seed=repetition,
        confirm_seeds=1,
        search="gp",
        stop="median",
        base="replayed",
    )
    found, (best, _) = [], surface.scale()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        scheduler = StudyScheduler(rules, StudyJournal(Path(folder)))
        for number in range(1, after[-1] + 1):
            spec = scheduler.next()
            assert spec is not None
            run_trial(scheduler, spec, surface, number, repetition)
            if number in after:
                lost = surface.final(scheduler.best()["arm"].spec.parameters) - best
                gain = scheduler.gains.loss("arm")
                found.append(
                    Search(
                        lost=POINTS * max(lost, 0.0), said=gain.in_points(POINTS) if gain else None
                    )
                )
    return found


class Pools:
    """Searches by surface, those of earlier runs included if they are kept in a file."""

    def __init__(self, file: Path | None = None) -> None:
        """Read ``file``, which may not be there yet."""
        self.file = file
        self.found: dict[tuple[str, int], list[Search]] = {}
        """Surface and repetition -> the search after each of ``AFTER``."""
        for line in file.read_text().splitlines() if file and file.exists() else ():
            surface, repetition, searches = json.loads(line)
            self.found[surface, repetition] = [Search.from_plain(one) for one in searches]

    def grow(self, surface: Surface, repetition: int) -> None:
        """Play a search, unless it was played before."""
        key = surface.name, repetition
        if key in self.found:
            return
        self.found[key] = play(surface, repetition)
        if self.file:
            with self.file.open("a") as file:
                plain = [asdict(one) for one in self.found[key]]
                file.write(json.dumps([*key, plain]) + "\n")

    def of(self, surface: str, after: int) -> list[Search]:
        """The searches of a surface after so many trials."""
        place = AFTER.index(after)
        return [found[place] for (name, _), found in self.found.items() if name == surface]
