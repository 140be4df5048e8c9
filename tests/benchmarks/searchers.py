"""Searchers and rules of early stopping on arms whose losses are known everywhere.

``python -m tests.benchmarks.searchers [--repetitions N] [--only NAME+NAME,...] [--played FILE]``:
each setup plays a study of 48 trials on each surface (``surfaces``), with the project's own
scheduler, journal, searchers and stoppers; nothing is trained. With ``--played``, each study that
was played is a line of that file, and those that are in it are not played again: so a run that was
ended goes on, and with ``--minutes 0`` it prints the tables of what is there.

*Regret*: the final loss, without noise, of the trial that would be confirmed after so many trials,
above the lowest that there is; in percent of what lies between the lowest and the median of the
surface, so that surfaces can be averaged. *Trained*: whole trainings that the 48 trials cost.
*Draw*: how long a draw takes, in milliseconds. Last, for the Gaussian process: how much lower
the loss could be, how much lower it was said that it could be (``study.search.arm_gains``), and the
share of studies in which what remained was below the 90th percentile that was said.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from search_spaces.declare import Budget, Space
from study.search.journal import StudyJournal
from study.search.loss_slopes import SCORE
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.gain import RemainingGain
from study.trials.record import Outcome, Rung, TrialEnd
from study.trials.spec import TrialSpec
from tests.benchmarks.surfaces import FACTS, Surface, all_surfaces

REPETITIONS = 200
AFTER = (12, 24, 48)
SETUPS: tuple[tuple[str, str], ...] = (
    ("random", "none"),
    ("grid", "none"),
    ("cmaes", "none"),
    ("tpe", "none"),
    ("gp", "none"),
    ("random", "asha"),
    ("tpe", "asha"),
    ("tpe", "median"),
    ("gp", "asha"),
    ("gp", "median"),
    ("gp", "hyperband"),
)
"""Searcher and stopper; ``GPSampler`` is slow and measured by ``--only GPSampler+none``."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One study that was played."""

    regret: tuple[float, ...]
    """Regret after each of ``AFTER``, in loss."""
    told: tuple[RemainingGain | None, ...]
    """What was said to remain after each of ``AFTER``, in loss; of searches by ``gp`` only."""
    trained: float
    """Whole trainings."""
    milliseconds: float
    """How long a draw took, as a mean."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Played:
        """What ``dataclasses.asdict`` made of one."""
        told = [None if gain is None else RemainingGain(**gain) for gain in plain["told"]]
        return cls(**{**plain, "regret": tuple(plain["regret"]), "told": tuple(told)})


class PlayedStudies:
    """The studies that were played, also by earlier runs if they are kept in a file."""

    def __init__(self, file: Path | None) -> None:
        """Read ``file``, which may not be there yet."""
        self.file = file
        self.found: dict[tuple[str, str, str, int], Played] = {}
        """Surface, searcher, stopper and repetition -> the study."""
        for line in file.read_text().splitlines() if file and file.exists() else ():
            surface, search, stop, repetition, played = json.loads(line)
            self.found[surface, search, stop, repetition] = Played.from_plain(played)

    def play(self, surface: Surface, search: str, stop: str, repetition: int) -> None:
        """Play a study, unless it was played before."""
        key = surface.name, search, stop, repetition
        if key in self.found:
            return
        with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
            self.found[key] = play(surface, search, stop, repetition, Path(folder))
        if self.file:
            with self.file.open("a") as file:
                file.write(json.dumps([*key, asdict(self.found[key])]) + "\n")

    def whole(self, surfaces: Sequence[Surface], setups: Sequence[tuple[str, str]]) -> list[int]:
        """Repetitions that were played by every setup on every surface."""
        wanted = [(surface.name, *setup) for surface in surfaces for setup in setups]
        counts = Counter(repetition for *key, repetition in self.found if tuple(key) in wanted)
        return sorted(number for number, count in counts.items() if count == len(wanted))


def play(surface: Surface, search: str, stop: str, repetition: int, folder: Path) -> Played:
    """Play one study; ``repetition`` is its seed."""
    budget = surface.budget
    rules = SearchRules(
        space=Space(question="?", arms={"arm": surface.arm}),
        budget=Budget(
            trials=AFTER[-1],
            max_examples=budget.max_examples,
            reduction=budget.reduction,
            rungs=budget.rungs,
            batch_size=budget.batch_size,
        ),
        slots=("vision", "fusion", "decoder"),
        seed=repetition,
        confirm_seeds=1,
        search=search,
        stop=stop,
        base="replayed",
    )
    scheduler = StudyScheduler(rules, StudyJournal(folder))
    best, _ = surface.scale()
    regret, told, trained, drawing = [], [], 0.0, 0.0
    for number in range(1, AFTER[-1] + 1):
        began = time.perf_counter()
        spec = scheduler.next()
        drawing += time.perf_counter() - began
        assert spec is not None
        trained += run_trial(scheduler, spec, surface, number, repetition)
        if number in AFTER:
            regret.append(surface.final(scheduler.best()["arm"].spec.parameters) - best)
            told.append(scheduler.gains.loss("arm") if search == "gp" else None)
    milliseconds = 1000 * drawing / AFTER[-1]
    return Played(
        regret=tuple(regret), told=tuple(told), trained=trained, milliseconds=milliseconds
    )


def run_trial(
    scheduler: StudyScheduler,
    spec: TrialSpec,
    surface: Surface,
    number: int,
    repetition: int,
    points: float = 0.0,
) -> float:
    """Report a trial's losses and its end; return how much of a whole training it took. ``number``
    decides its noise; a loss that is lower by 1 is worth so many ``points`` of accuracy."""
    losses = surface.curve(spec.parameters, number, repetition)
    outcome = Outcome.COMPLETE
    for stop_at, loss in zip(spec.stops, losses, strict=True):
        report = Rung(
            examples_seen=stop_at,
            validation_loss=loss,
            train_loss=loss,
            seconds=1.0,
            reported_at=float(number),
        )
        if not scheduler.reported(spec.id, report) and stop_at < spec.stops[-1]:
            outcome = Outcome.PRUNED
            break
    scores = {SCORE: 100 - points * loss} if points and outcome is Outcome.COMPLETE else {}
    scheduler.ended(spec.id, TrialEnd(outcome=outcome, scores=scores))
    return stop_at / spec.stops[-1]


def memory_folder() -> Path | None:
    """Folder in memory, since a journal waits for the disk; None if there is none."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--only", help="SEARCHER+STOPPER[,SEARCHER+STOPPER]")
    parser.add_argument("--surfaces", help="only those with one of these in their names: TEXT;TEXT")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no study later")
    parser.add_argument("--played", type=Path, help="file of the studies that were played")
    given = parser.parse_args(arguments)
    setups = SETUPS
    if given.only:
        parts = (name.partition("+") for name in given.only.split(","))
        setups = tuple((search, stop) for search, _, stop in parts)
    parts_of_names = given.surfaces.split(";") if given.surfaces else [""]
    surfaces = [s for s in all_surfaces() if any(part in s.name for part in parts_of_names)]
    if not FACTS.exists():
        print(f"{FACTS} is not there: without the surfaces that are made of it")
    studies, began = PlayedStudies(given.played), time.monotonic()
    for repetition, surface, setup in product(range(given.repetitions), surfaces, setups):
        if time.monotonic() - began >= 60 * given.minutes:
            break
        studies.play(surface, *setup, repetition)
    done = studies.whole(surfaces, setups)
    if not done:
        raise SystemExit("no repetition was played by every setup on every surface")
    widths = [max(len(surface.name), 12) for surface in surfaces]
    rows = {
        setup: [[studies.found[s.name, *setup, number] for number in done] for s in surfaces]
        for setup in setups
    }
    print(f"{len(done)} repetitions; regret in percent: mean (90th percentile)")
    for number, after in enumerate(AFTER):
        print(f"\nafter {after} trials")
        names = "  ".join(f"{s.name:>{w}}" for s, w in zip(surfaces, widths, strict=True))
        print(f"{'':22} {'all':>12}  {names}")
        for (search, stop), played in rows.items():
            cells, means, nineties = [], [], []
            for surface, width, of_surface in zip(surfaces, widths, played, strict=True):
                _, unit = surface.scale()
                lost = [100 * one.regret[number] / unit for one in of_surface]
                means.append(mean(lost))
                nineties.append(float(np.quantile(lost, 0.9)))
                cells.append(f"{f'{means[-1]:.1f} ({nineties[-1]:.1f})':>{width}}")
            every = f"{mean(means):.1f} ({mean(nineties):.1f})"
            print(f"{search:>12} {stop:<9} {every:>12}  {'  '.join(cells)}")
    print(f"\n{'':22} {'trained':>8} {'draw, ms':>9}")
    for (search, stop), played in rows.items():
        every_one = [one for of_surface in played for one in of_surface]
        trained = mean(one.trained for one in every_one)
        drawing = mean(one.milliseconds for one in every_one)
        print(f"{search:>12} {stop:<9} {trained:8.1f} {drawing:9.1f}")
    for (search, stop), played in rows.items():
        if search == "gp":
            print(f"\nloss that remains, that is said to, and % below the said bound: gp {stop}")
            for surface, of_surface in zip(surfaces, played, strict=True):
                print(f"{surface.name:>18}  {remaining(of_surface)}")


def remaining(played: Sequence[Played]) -> str:
    """What remained and what was said to, means over studies, after each of ``AFTER``."""
    cells = []
    for number, after in enumerate(AFTER):
        pairs = [(one.regret[number], one.told[number]) for one in played]
        known = [(left, told) for left, told in pairs if told is not None]
        if known:
            left, said = mean(left for left, _ in known), mean(told.mean for _, told in known)
            below = mean(left <= told.high for left, told in known)
            cells.append(f"{after}: {left:.3f} {said:.3f} {below:4.0%}")
    return "   ".join(cells)


if __name__ == "__main__":
    main()
