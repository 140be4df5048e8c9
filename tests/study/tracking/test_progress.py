"""What a person sees of a study that runs: a view on a terminal, a line an event elsewhere."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from study.config.spending_limit import SpendingLimit
from study.planning.foretold_time import TimeLeft
from study.search.scheduler import StudyScheduler
from study.search.spending import SpendingTracker
from study.tracking.progress import Progress
from study.trials.record import Outcome
from study.trials.spec import Kind
from tests.study.made_up import play, play_all, rung
from tests.study.planning.test_foretold_time import FORECAST

Begin = Callable[..., StudyScheduler]
FREE = SpendingLimit()
GONE = 100.0
"""Seconds since the study began; no more go by."""


def watched(
    begin: Begin, folder: Path, console: Console, limit: SpendingLimit = FREE
) -> tuple[StudyScheduler, Progress]:
    """A study of which some trials have ended and two run, one of them past its first rung."""
    spending = SpendingTracker(
        limit, devices=2, concurrency=2, scored=2.0, began=0.0, clock=lambda: GONE
    )
    time_left = TimeLeft(FORECAST, clock=lambda: GONE)
    progress = Progress(console, folder, spending=spending, time_left=time_left, questions=100)
    scheduler = begin(spending, progress)
    progress.watch(scheduler)
    for _ in range(8):
        spec = scheduler.next()
        assert spec is not None
        play(scheduler, spec, {"seconds": 20.0})
    first, second = scheduler.next(), scheduler.next()
    assert first is not None and second is not None
    scheduler.reported(first.id, rung(first, first.stops[0]))
    return scheduler, progress


def seen(progress: Progress) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(progress.render())
    return console.export_text()


def test_a_terminal_shows_how_it_goes(begin: Begin, tmp_path: Path) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=140)
    scheduler, progress = watched(begin, tmp_path, console)
    shown = seen(progress)
    for part in ("search 8/12", "confirm 0/4", "gone", "left", "examples/s", "2 running"):
        assert part in shown, part
    (first,) = [r for r in scheduler.journal.records.values() if r.rungs and not r.outcome]
    taken = 8 * 20.0 + first.rungs[-1].seconds
    assert f"2 devices {taken / (2 * GONE):.0%} used" in shown
    ended = [r for r in scheduler.journal.records.values() if r.outcome is not None]
    for arm, best in scheduler.best().items():
        (row,) = [line.split() for line in shown.splitlines() if line.startswith(f"{arm} ")]
        outcomes = [r.outcome for r in ended if r.spec.arm == arm]
        running = sum(
            r.spec.arm == arm for r in scheduler.journal.records.values() if not r.outcome
        )
        done, pruned = (outcomes.count(o) for o in (Outcome.COMPLETE, Outcome.PRUNED))
        assert row[1:6] == [str(running), str(done), str(pruned), "0", f"{best.loss:.4f}"]
        assert row[6:9] == ["50.0", "\u00b1", "9.8"], "of 100 questions"
    assert written.getvalue() == "", "no lines on a terminal"


def test_elsewhere_each_event_is_a_plain_line(begin: Begin, tmp_path: Path) -> None:
    out = io.StringIO()
    scheduler, _ = watched(begin, tmp_path, Console(file=out, width=140))
    lines = out.getvalue().splitlines()
    assert len(lines) == 8, "one a trial that has ended"
    assert "\x1b" not in out.getvalue() and "8/17" in lines[-1]
    for arm, best in scheduler.best().items():
        (last, *_) = [line for line in lines[::-1] if f"the best {arm} so far" in line]
        assert best.spec.id in last
    assert (tmp_path / "study.log").read_text().count(" rung ") > 8


def test_the_base_model_is_named_once(begin: Begin, tmp_path: Path) -> None:
    out = io.StringIO()
    scheduler, _ = watched(begin, tmp_path, Console(file=out, width=140))
    running = [r for r in scheduler.journal.records.values() if r.outcome is None]
    for record in running:
        play(scheduler, record.spec)
    play_all(scheduler)
    (line,) = [line for line in out.getvalue().splitlines() if "untuned" in line]
    (untuned,) = scheduler.journal.of_kind(Kind.UNTUNED)
    assert f"complete untuned {untuned.spec.id}: " in line


def test_with_a_budget_of_time_it_says_how_much_is_left(begin: Begin, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    _, progress = watched(begin, tmp_path, console, SpendingLimit(seconds=3700.0))
    shown = seen(progress)
    assert "search 8 " in shown and "8/" not in shown
    assert "1:00:00 left" in shown, "when 100 seconds are gone"
