"""Ways of dividing a study's trials among arms, on arms whose losses are known everywhere.

``python -m tests.benchmarks.allocation [--repetitions N]``: plays studies of LayerNorm, which has
one setting, against LoRA, which has two, three or four (``surfaces``), by the project's own
scheduler; nothing is trained. Of each way: the trials and whole trainings that a study takes, and
of each arm how many trials it got, how many points its best trial is from the best that there is
(mean and 90th percentile), how many it was said to be (``study.search.arm_gains``), and in which
share of studies the truth was below the 90th percentile that was said. A loss is worth
``POINTS`` points for each unit, the slope of the recorded trainings.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np

from search_spaces.declare import Space
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.gain import RemainingGain
from study.trials.spec import Kind
from tests.benchmarks.searchers import memory_folder, run_trial
from tests.benchmarks.surfaces import Surface, all_surfaces

POINTS = 80.0
"""Points of validation accuracy for a validation loss lower by 1, near the best trials: 0.05 is
about four points in the recorded trainings."""
ARMS = ("LoRA", "LoRA, 3 settings", "LoRA, 4 settings")
"""Surfaces that LayerNorm is compared with."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of dividing trials."""

    allocate: str
    trials: int
    stop: str = "median"
    tuned_to: float = 1.0

    @property
    def name(self) -> str:
        """Its options in short."""
        to = f" to {self.tuned_to:g}" if self.allocate == "tuned" else ""
        return f"{self.allocate}{to}, {self.trials}, {self.stop}"


WAYS = (
    Way(allocate="floor", trials=24),
    Way(allocate="equal", trials=24),
    Way(allocate="tuned", trials=24),
    Way(allocate="equal", trials=40),
    Way(allocate="tuned", trials=40),
    Way(allocate="tuned", trials=40, tuned_to=2.0),
    Way(allocate="floor", trials=24, stop="asha"),
    Way(allocate="tuned", trials=40, stop="asha"),
)


@dataclass(frozen=True, kw_only=True)
class PlayedArm:
    """What a study found of one arm."""

    trials: int
    lost: float
    """Points from the best that there is."""
    said: RemainingGain | None


def play(arms: Mapping[str, Surface], way: Way, repetition: int) -> tuple[float, list[PlayedArm]]:
    """Play one study: whole trainings, and what was found of each arm."""
    first = next(iter(arms.values()))
    rules = SearchRules(
        space=Space(question="?", arms={name: s.arm for name, s in arms.items()}),
        budget=replace(first.budget, trials=way.trials),
        slots=("vision", "fusion", "decoder"),
        seed=repetition,
        confirm_seeds=1,
        allocate=way.allocate,
        tuned_to=way.tuned_to,
        search="gp",
        stop=way.stop,
        base="replayed",
    )
    trained, counts = 0.0, Counter[str]()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        scheduler = StudyScheduler(rules, StudyJournal(Path(folder)))
        while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
            number = counts.total() + 1
            counts[spec.arm] += 1
            trained += run_trial(scheduler, spec, arms[spec.arm], number, repetition, POINTS)
        said, best = scheduler.gains.found(), scheduler.best()
    found = []
    for name, surface in arms.items():
        lost = surface.final(best[name].spec.parameters) - surface.scale()[0]
        found.append(PlayedArm(trials=counts[name], lost=POINTS * lost, said=said.get(name)))
    return trained, found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--lora", choices=ARMS, action="append", help="only this arm of LoRA")
    given = parser.parse_args(arguments)
    repetitions = range(given.repetitions)
    surfaces = {surface.name: surface for surface in all_surfaces()}
    for other in (name for name in given.lora or ARMS if name in surfaces):
        arms = {"layernorm": surfaces["LayerNorm"], "lora": surfaces[other]}
        print(f"\nLayerNorm and {other}: {len(repetitions)} studies each")
        print(f"{'':24} {'trials':>7} {'trained':>8}", end="")
        print("".join(f"  {name + ': trials, lost (90%), said, below':>44}" for name in arms))
        for way in WAYS:
            played = [play(arms, way, repetition) for repetition in repetitions]
            every = [found for _, found in played]
            trials = mean(sum(arm.trials for arm in found) for found in every)
            trained = mean(training for training, _ in played)
            print(f"{way.name:24} {trials:7.1f} {trained:8.1f}", end="")
            for number in range(len(arms)):
                print(f"  {_of_arm([found[number] for found in every]):>44}", end="")
            print(flush=True)


def _of_arm(found: Sequence[PlayedArm]) -> str:
    """Means over studies of one arm, as text."""
    lost = [one.lost for one in found]
    known = [(one.lost, one.said) for one in found if one.said is not None]
    text = f"{mean(one.trials for one in found):5.1f} {mean(lost):6.2f} "
    text += f"({float(np.quantile(lost, 0.9)):5.2f})"
    if known:
        said = mean(told.mean for _, told in known)
        below = mean(points <= told.high for points, told in known)
        text += f" {said:6.2f} {below:5.0%}"
    return text


if __name__ == "__main__":
    main()
