"""Shows the progress of a study on the terminal, and logs all events to ``study.log``."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.planning.foretold_time import TimeLeft
from study.search.scheduler import StudyScheduler
from study.search.spending import SpendingTracker
from study.storage.study_folder import LOG
from study.trials.callback import StudyCallback
from study.trials.colours import terminal_styles
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from study.trials.text import clock_text, settings_text

STYLES = {
    Outcome.COMPLETE: "green",
    Outcome.PRUNED: "yellow",
    Outcome.DIVERGED: "magenta",
    Outcome.OUT_OF_MEMORY: "red",
    Outcome.FAILED: "red",
}
"""Outcome -> colour on the terminal."""


class Progress(StudyCallback):
    """Shows a live view on a terminal, and prints a line for each event elsewhere.

    It is a callback of the scheduler, and a context manager: the live view is shown while inside.
    All lines also go to ``study.log``.
    """

    def __init__(
        self,
        console: Console,
        folder: Path,
        *,
        spending: SpendingTracker,
        time_left: TimeLeft,
        questions: int,
    ) -> None:
        """Open the log in ``folder``.

        Args:
            spending: knows what the study has spent.
            time_left: knows how long the study still takes.
            questions: number of questions in the validation split.
        """
        self.console, self.spending, self.questions = console, spending, questions
        self.time_left = time_left
        self.log = (folder / LOG).open("a", encoding="utf-8")
        self.scheduler: StudyScheduler | None = None
        self.running: dict[str, TrialRecord] = {}
        """Trial id -> record, for trials that run now."""
        self.ended_in: Counter[tuple[Kind, str, Outcome]] = Counter()
        """(kind, arm, outcome) -> number of trials that ended so."""
        self.begun = time.monotonic()
        """Monotonic time at which this session began."""
        self.trained = 0
        """Examples that all trials have seen since this session began."""
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=2)

    def watch(self, scheduler: StudyScheduler) -> None:
        """Show this scheduler's trials, those that ended in earlier sessions included."""
        self.scheduler = scheduler
        for record in scheduler.journal.records.values():
            if record.outcome is not None:
                self._tally(record)
                self.time_left.resume(record)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self.log.close()

    def started(self, record: TrialRecord) -> None:
        """Show the trial among the running ones."""
        self.time_left.started(record)
        self.running[record.spec.id] = record
        going_on = f", goes on from {record.examples_seen:,} examples" if record.rungs else ""
        self._line(f"start    {_name(record)} {_settings(record)}{going_on}", quiet=not going_on)

    def reported(self, record: TrialRecord) -> None:
        """Advance the trial's progress."""
        before = record.rungs[-2].examples_seen if len(record.rungs) > 1 else 0
        self.trained += record.examples_seen - before
        self._line(
            f"rung     {_name(record)} {record.examples_seen:,} examples, "
            f"validation loss {record.loss:.4f}",
            quiet=True,
        )

    def ended(self, record: TrialRecord) -> None:
        """Remove the trial from the running ones, and count it."""
        self.running.pop(record.spec.id, None)
        self.time_left.ended(record)
        self._tally(record)
        told = [f"validation loss {record.loss:.4f} at {record.examples_seen:,} examples"]
        if "test.overall" in record.scores:
            told.append(f"test {record.scores['test.overall']:.1f}%")
        if record.error:
            told.append(record.error)
        if record.remark:
            told.append(record.remark)
        if record.spec.kind is Kind.UNTUNED:
            del told[0]
        if self.scheduler and self.scheduler.best().get(record.spec.arm) is record:
            told.append(f"the best {record.spec.arm} so far")
        trial = f"{_name(record)} {_settings(record)}".rstrip()
        left, use = clock_text(self.left()), self.spending.use
        self._line(
            f"{record.outcome:8} {trial}: {', '.join(told)} "
            f"[{self._count()}, {left} left, devices {use:.0%} used]"
        )

    def left(self) -> float | None:
        """Seconds to the study's end, by ``--budget`` while it searches, else as ``TimeLeft`` says;
        None if nothing is known of its pace."""
        scheduler = self.scheduler
        over = scheduler is not None and scheduler.journal.search_over
        if self.spending.limit.timed and not over:
            return self.spending.left()
        self.time_left.search_over = over
        if scheduler is not None:
            self.time_left.seeds = scheduler.seeds()
        return self.time_left.left()

    def render(self) -> RenderableType:
        """The content of the live view."""
        scheduler = self.scheduler
        if scheduler is None:
            return Text("starting")
        rules, left = scheduler.rules, self.left()
        searched, confirmed = self._ended(Kind.SEARCH), self._ended(Kind.CONFIRM)
        to_confirm = sum(scheduler.seeds().values())
        elapsed = time.monotonic() - self.begun
        if self.spending.limit.timed:  # the number of trials is not known
            done, total, of_all = elapsed, elapsed + (left or 0.0), ""
        else:
            most = searched if scheduler.journal.search_over else rules.budget.trials
            done, total = searched + confirmed, most + to_confirm
            of_all = f"/{most}"
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=total, completed=done, width=30),
            f"search {searched}{of_all}",
            f"confirm {confirmed}/{to_confirm}",
            f"{clock_text(elapsed)} gone",
            f"{clock_text(left)} left",
        )
        rate = self.trained / max(elapsed, 1.0)
        devices = self.spending.devices
        pace = Text(
            f"{rate:,.0f} examples/s, {len(self.running)} running, "
            f"{devices} device{'s' if devices > 1 else ''} {self.spending.use:.0%} used"
        )
        return Group(head, pace, self._arms(), self._running())

    def _arms(self) -> Table:
        """A table of the arms: counts of trials by outcome, and the best trial so far."""
        assert self.scheduler is not None
        best, styles = self.scheduler.best(), terminal_styles(self.scheduler.rules.space.declared)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("arm", "running", "done", "pruned", "other"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        table.add_column("best loss", justify="right")
        table.add_column("validation %", justify="right")
        table.add_column("with")
        for arm in self.scheduler.rules.space.arms:
            outcomes = {o: self.ended_in[Kind.SEARCH, arm, o] for o in Outcome}
            done, pruned = outcomes.pop(Outcome.COMPLETE), outcomes.pop(Outcome.PRUNED)
            running = sum(r.spec.arm == arm for r in self.running.values())
            record = best.get(arm)
            table.add_row(
                Text(arm, style=styles[arm]),
                str(running),
                Text(str(done), style=STYLES[Outcome.COMPLETE]),
                Text(str(pruned), style=STYLES[Outcome.PRUNED]),
                str(sum(outcomes.values())),
                f"{record.loss:.4f}" if record else "",
                self._score(record) if record else "",
                _settings(record) if record else "",
            )
        return table

    def _score(self, record: TrialRecord) -> str:
        """Validation accuracy with half its 95% interval, which follows from the number of
        questions alone. Seeds, and images with several questions, make it wider, which only the
        confirmation can tell."""
        score = record.scores.get("validation.overall")
        if score is None:
            return ""
        half = 1.96 * math.sqrt(max(score * (100 - score), 0.0) / self.questions)
        return f"{score:.1f} \u00b1 {half:.1f}"

    def _running(self) -> Table:
        """A table of the running trials."""
        table = Table.grid(padding=(0, 2))
        for record in self.running.values():
            spec = record.spec
            table.add_row(
                ProgressBar(total=spec.max_examples, completed=record.examples_seen, width=10),
                _name(record),
                f"{record.loss:.4f}" if record.rungs else "",
                _settings(record),
            )
        return table

    def _count(self) -> str:
        """Number of ended trials, out of all where that is known."""
        assert self.scheduler is not None
        rules, ended = self.scheduler.rules, self.ended_in.total()
        if self.spending.limit.timed:
            return str(ended)
        over = self.scheduler.journal.search_over
        searched = self._ended(Kind.SEARCH) if over else rules.budget.trials
        untuned = rules.untuned * (1 + rules.brief) * rules.splits
        return f"{ended}/{searched + untuned + sum(self.scheduler.seeds().values())}"

    def _tally(self, record: TrialRecord) -> None:
        assert record.outcome is not None
        self.ended_in[record.spec.kind, record.spec.arm, record.outcome] += 1

    def _ended(self, kind: Kind) -> int:
        """Number of ended trials of one kind."""
        return sum(count for (of, _, _), count in self.ended_in.items() if of is kind)

    def _line(self, text: str, *, quiet: bool = False) -> None:
        """Log a line, and print it unless ``quiet`` or shown live."""
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        print(stamped, file=self.log, flush=True)
        if not quiet and not self.console.is_terminal:
            self.console.print(stamped, highlight=False, soft_wrap=True)


def _name(record: TrialRecord) -> str:
    spec = record.spec
    seed = f" seed {spec.seed}" if spec.kind is Kind.CONFIRM else ""
    what = " ".join(dict.fromkeys((spec.kind, spec.arm)))  # the base model's are both "untuned"
    return f"{what}{seed} {spec.id}"


def _settings(record: TrialRecord) -> str:
    """The searched settings of a trial, as text."""
    return settings_text(record.spec.parameters)
