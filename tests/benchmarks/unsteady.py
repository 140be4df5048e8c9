"""How often steady arms are called unsteady by the losses of their search trials, and how many
collapses are seen (``study.search.unsteady_arms``).

An arm is searched by the project's own scheduler (``gp``, ``median``, five trials for each of its
ranges, six at least) on a surface (``surfaces``); nothing is trained. Either all trainings are
steady, or ``RATE`` of them collapse: their losses are then those of one of four kinds, in shares of
the loss with which training begins, as recorded trainings at too large learning rates have them:

* ``early``: before the first rung, to 1.7 to 1.5 of it;
* ``late``: after the first rung, to 0.92 to 0.87;
* ``last``: after the last rung but one, to 0.87;
* ``stuck``: at 0.95 to 0.87 from the beginning on, as if only the most frequent answer was learnt.

``python -m tests.benchmarks.unsteady [--repetitions 20]`` prints: the percent of steady arms that
are called unsteady, with the surfaces on which any is; and, of arms of which a trial collapsed at a
learning rate no larger than the best's, the percent that are called so. With ``--recorded`` it
prints recorded trainings with several seeds (``record_curves --seeds``), and whether the loss of
each is said to have risen, beside that of the best one and those of slower ones.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search_spaces.declare import Choice, LogUniform, Space, Uniform
from study.config import spaces
from study.config.spaces import default_trials
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.search.unsteady_arms import rose
from study.trials.record import Outcome, Rung, TrialEnd
from study.trials.spec import Kind, TrialSpec
from tests.benchmarks.claims import percent
from tests.benchmarks.record_curves import SEEDS_FILE, TARGETS_FILE, recorded
from tests.benchmarks.searchers import memory_folder
from tests.benchmarks.surfaces import Surface, all_surfaces, judging_surfaces

RATE = 0.15
"""Share of trainings that collapse, in arms that are not steady."""
KINDS = ("early", "late", "last", "stuck")


def begins_with(surface: Surface) -> float:
    """Loss with which training begins: the highest at the first rung of the lowest learning
    rate."""
    drawn, found = random.Random(0), 0.0
    for _ in range(50):
        point = {}
        for name, values in spaces.ranges(surface.arm).items():
            if isinstance(values, Choice):
                point[name] = drawn.choice(values.values)
            else:
                assert isinstance(values, LogUniform | Uniform)
                point[name] = values.low if name == "lr" else drawn.uniform(values.low, values.high)
        found = max(found, surface.curve(point, 0, 0)[0])
    return found


def collapsed(kind: str, steady: Sequence[float], began: float) -> list[float]:
    """Losses of a training that collapses."""
    ends = np.linspace(0.92, 0.87, len(steady) - 1)
    match kind:
        case "early":
            shares: Sequence[float] = [*np.linspace(1.7, 1.5, len(steady))]
        case "late":
            shares = [steady[0] / began, *ends]
        case "last":
            shares = [*(loss / began for loss in steady[:-1]), 0.87]
        case _:
            shares = [0.95, *ends]
    return [began * share for share in shares]


def play(surface: Surface, kind: str, repetition: int, *, rate: float = RATE) -> tuple[bool, bool]:
    """Play a search: whether the arm is called unsteady, and whether a trial collapsed at a
    learning rate no larger than the best's. ``kind`` is empty for a steady arm, and ``rate`` is the
    share of trainings that collapse if it is not."""
    space = Space(question="?", arms={"arm": surface.arm})
    rules = SearchRules(
        space=space,
        budget=replace(surface.budget, trials=default_trials(space)),
        slots=("vision", "fusion", "decoder"),
        seed=repetition,
        confirm_seeds=1,
        times_if_collapsed=2,
        allocate="equal",
        search="gp",
        stop="median",
        base="replayed",
    )
    drawn, began = random.Random(f"{surface.name} {repetition} {kind}"), begins_with(surface)
    lost, number = list[TrialSpec](), 0
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        scheduler = StudyScheduler(rules, StudyJournal(Path(folder)))
        while (spec := scheduler.next()) is not None and spec.kind is Kind.SEARCH:
            number += 1
            losses = surface.curve(spec.parameters, number, repetition)
            if kind and drawn.random() < rate:
                losses = collapsed(kind, losses, began)
                lost.append(spec)
            report(scheduler, spec, losses, number)
        best = scheduler.best()["arm"].spec
        there = any(spec.lr <= best.lr and spec.id != best.id for spec in lost)
        return bool(scheduler.collapsed_at()), there


def report(
    scheduler: StudyScheduler, spec: TrialSpec, losses: Sequence[float], number: int
) -> None:
    """Report a trial's losses until it is stopped or ends."""
    outcome = Outcome.COMPLETE
    for stop, loss in zip(spec.stops, losses, strict=True):
        rung = Rung(
            examples_seen=stop,
            validation_loss=loss,
            train_loss=loss,
            seconds=1.0,
            reported_at=float(number),
        )
        if not scheduler.reported(spec.id, rung) and stop < spec.stops[-1]:
            outcome = Outcome.PRUNED
            break
    scheduler.ended(spec.id, TrialEnd(outcome=outcome))


def print_recorded() -> None:
    """Print each training of ``SEEDS_FILE``, judged beside those of one seed of the same arm."""
    alike = [r for r in recorded(TARGETS_FILE) if r["parameters"]["lora.targets"] == "all"]
    losses = {r["parameters"]["lr"]: {int(n): x for n, x in r["losses"].items()} for r in alike}
    best = losses[min(losses, key=lambda lr: losses[lr][max(losses[lr])])]
    print("| lr | seed | validation losses | validation % | rose |\n|---|---|---|---|---|")
    for line in sorted(recorded(SEEDS_FILE), key=lambda line: (line["lr"], line["seed"])):
        own = {int(n): loss for n, loss in line["losses"].items()}
        began = max(max(each.values()) for lr, each in losses.items() if lr < line["lr"])
        told = "yes" if rose(own, began, best) else "no"
        shown = ", ".join(f"{loss:.3f}" for loss in own.values())
        print(
            f"| {line['lr']} | {line['seed']} | {shown} | {line['validation_percent']} | {told} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="searches of each surface")
    parser.add_argument("--recorded", action="store_true", help="recorded trainings alone")
    given = parser.parse_args()
    if given.recorded:
        print_recorded()
        return
    chosen_by, judged_by = all_surfaces(), judging_surfaces()
    print("| trainings | surfaces | arms | called unsteady, % | where |\n|---|---|---|---|---|")
    for kind in ("", *KINDS):
        for name, surfaces in (("all but these", chosen_by), ("judging", judged_by)):
            called, where = list[float](), defaultdict[str, list[float]](list)
            for surface in surfaces:
                for repetition in range(given.repetitions):
                    found, there = play(surface, kind, repetition)
                    if there or not kind:
                        called.append(float(found))
                        where[surface.name].append(float(found))
            mean, error = percent(called)
            most = max(where, key=lambda each: np.mean(where[each]))
            told = f"most on {most}: {100 * np.mean(where[most]):.0f}" if mean else ""
            cells = (kind or "steady", name, len(called), f"{mean:.1f} ±{error:.1f}", told)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
