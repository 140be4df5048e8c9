"""What a person sees: the progress of a study while it runs, and its answer at the end."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study import objectives
from study.allowance import Purse
from study.conductor import Conductor
from study.records import Kind, Outcome, TrialRecord

LOG = "study.log"
STYLES = {
    Outcome.COMPLETE: "green",
    Outcome.PRUNED: "yellow",
    Outcome.DIVERGED: "magenta",
    Outcome.OUT_OF_MEMORY: "red",
    Outcome.FAILED: "red",
}


class Progress:
    """A live view on a terminal, a line an event elsewhere; the lines go to ``study.log`` too.

    An observer of the conductor, and a context: the view is there while inside.
    """

    def __init__(
        self, console: Console, folder: Path, seeds: int, *, purse: Purse, questions: int
    ) -> None:
        """Args:
        seeds: confirmations of each arm.
        purse: knows what was spent.
        questions: of the validation split.
        """
        self.console, self.purse, self.questions = console, purse, questions
        self.log = (folder / LOG).open("a", encoding="utf-8")
        self.seeds = seeds
        self.conductor: Conductor | None = None
        self.running: dict[str, TrialRecord] = {}
        self.ended_in: Counter[tuple[Kind, str, Outcome]] = Counter()
        """(kind, arm, outcome) -> trials."""
        self.seen: Counter[Kind] = Counter()
        """Kind -> examples that its ended trials saw."""
        self.begun = time.monotonic()
        self.trained = 0
        """Examples seen since then, by all trials."""
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=2)

    def watch(self, conductor: Conductor) -> None:
        """Show this conductor's trials, and what is known of them from before."""
        self.conductor = conductor
        for record in conductor.ledger.records.values():
            if record.outcome is not None:
                self._tally(record)

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
        """Show it among the running."""
        self.running[record.spec.id] = record
        going_on = f", goes on from {record.examples_seen:,} examples" if record.rungs else ""
        self._line(f"start    {_name(record)} {_settings(record)}{going_on}", quiet=not going_on)

    def reported(self, record: TrialRecord) -> None:
        """Move it on."""
        before = record.rungs[-2].examples_seen if len(record.rungs) > 1 else 0
        self.trained += record.examples_seen - before
        self._line(
            f"rung     {_name(record)} {record.examples_seen:,} examples, "
            f"validation loss {record.loss:.4f}",
            quiet=True,
        )

    def ended(self, record: TrialRecord) -> None:
        """Count it."""
        self.running.pop(record.spec.id, None)
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
        if self.conductor and self.conductor.best().get(record.spec.arm) is record:
            told.append(f"the best {record.spec.arm} so far")
        self._line(
            f"{record.outcome:8} {_name(record)} {_settings(record)}: {', '.join(told)} "
            f"[{self._count()}, {_clock(self.left())} left, devices {self.purse.use:.0%} used]"
        )

    def left(self) -> float | None:
        """Seconds to the end, as ``--budget`` or the pace so far says; None before there is one."""
        conductor = self.conductor
        if self.purse.allowance.timed and conductor and not conductor.ledger.cut_short:
            return self.purse.left()
        if conductor is None or not self.trained:
            return None
        ended, whole = self._ended(Kind.SEARCH), conductor.stops[-1]
        typical = self.seen[Kind.SEARCH] / ended if ended else whole / 2
        searched = ended if conductor.ledger.cut_short else conductor.rules.budget.trials
        ahead = (searched - ended) * typical
        ahead += len(conductor.rules.space.arms) * self.seeds * whole - self.seen[Kind.CONFIRM]
        ahead -= sum(r.examples_seen for r in self.running.values())
        return max(ahead, 0.0) * (time.monotonic() - self.begun) / self.trained

    def render(self) -> RenderableType:
        """The live view."""
        conductor = self.conductor
        if conductor is None:
            return Text("starting")
        rules, left = conductor.rules, self.left()
        searched, confirmed = self._ended(Kind.SEARCH), self._ended(Kind.CONFIRM)
        to_confirm = len(rules.space.arms) * self.seeds
        elapsed = time.monotonic() - self.begun
        if self.purse.allowance.timed:  # how many trials there will be nobody knows
            done, total, of_all = elapsed, elapsed + (left or 0.0), ""
        else:
            done, total = searched + confirmed, rules.budget.trials + to_confirm
            of_all = f"/{rules.budget.trials}"
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=total, completed=done, width=30),
            f"search {searched}{of_all}",
            f"confirm {confirmed}/{to_confirm}",
            f"{_clock(elapsed)} gone",
            f"{_clock(left)} left",
        )
        rate = self.trained / max(elapsed, 1.0)
        devices = self.purse.devices
        pace = Text(
            f"{rate:,.0f} examples/s, {len(self.running)} running, "
            f"{devices} device{'s' if devices > 1 else ''} {self.purse.use:.0%} used"
        )
        return Group(head, pace, self._arms(), self._running())

    def _arms(self) -> Table:
        assert self.conductor is not None
        best = self.conductor.best()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("arm", "running", "done", "pruned", "other"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        table.add_column("best loss", justify="right")
        table.add_column("validation %", justify="right")
        table.add_column("with")
        for arm in self.conductor.rules.space.arms:
            outcomes = {o: self.ended_in[Kind.SEARCH, arm, o] for o in Outcome}
            done, pruned = outcomes.pop(Outcome.COMPLETE), outcomes.pop(Outcome.PRUNED)
            running = sum(r.spec.arm == arm for r in self.running.values())
            record = best.get(arm)
            table.add_row(
                arm,
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
        """Accuracy with half its 95% interval, by the number of questions alone: seeds and images
        with several questions make it wider, which only the confirmation can tell."""
        score = record.scores.get("validation.overall")
        if score is None:
            return ""
        half = 1.96 * math.sqrt(max(score * (100 - score), 0.0) / self.questions)
        return f"{score:.1f} \u00b1 {half:.1f}"

    def _running(self) -> Table:
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
        assert self.conductor is not None
        rules, ended = self.conductor.rules, self.ended_in.total()
        if self.purse.allowance.timed:
            return str(ended)
        return f"{ended}/{rules.budget.trials + 1 + len(rules.space.arms) * self.seeds}"

    def _tally(self, record: TrialRecord) -> None:
        assert record.outcome is not None
        self.ended_in[record.spec.kind, record.spec.arm, record.outcome] += 1
        self.seen[record.spec.kind] += record.examples_seen

    def _ended(self, kind: Kind) -> int:
        return sum(count for (of, _, _), count in self.ended_in.items() if of is kind)

    def _line(self, text: str, *, quiet: bool = False) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        print(stamped, file=self.log, flush=True)
        if not quiet and not self.console.is_terminal:
            self.console.print(stamped, markup=False, highlight=False, soft_wrap=True)


def show_results(console: Console, results: Mapping[str, Any]) -> None:
    """The table of confirmed arms, their baselines, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    table.add_column("best settings")
    shown = results["shown"]
    for column in (*shown.values(), "trained", "seconds", "GiB"):
        table.add_column(column, justify="right")
    for arm in results["arms"]:
        best = arm["best"] or {"parameters": {}}
        settings = " ".join(f"{k}={_short(v)}" for k, v in best["parameters"].items())
        if arm["test"] is None:
            table.add_row(arm["arm"], settings, "not confirmed")
            continue
        costs = arm["costs"]
        table.add_row(
            arm["arm"] + (" (collapsed)" if arm["collapsed"] else ""),
            settings,
            *(_interval(arm["test"][measure]) for measure in shown),
            f"{costs['trained_parameters']:,.0f}",
            f"{costs['seconds']:.1f}",
            f"{costs['peak_memory_gib']:.2f}",
        )
    for name in ("untuned", "majority"):
        scores = results["baselines"][name]
        if scores:
            note = {"untuned": "the base model as it is", "majority": "the most frequent answer"}
            parts = (scores[measure] for measure in shown)
            values = ("-" if value is None else f"{value:.1f}" for value in parts)
            table.add_row(name, note[name], *values, style="dim")
    console.print(table)
    console.print()
    _show_pairs(console, results["comparisons"])
    _show_front(console, results["efficiency"]["front"])
    for other in results["ood"]:
        scored = [f"{arm['arm']} {_interval(arm['test']['overall'])}" for arm in other["arms"]] + [
            f"{name} {s['overall']:.1f}" for name, s in other["baselines"].items() if s
        ]
        console.print(f"On {other['data']}, never trained on: {', '.join(scored)}")
        console.print()
    console.print(Text(results["verdict"], style="bold"))


def _show_pairs(console: Console, comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Of more than two arms: how the best one stands to each other. Of two the verdict says it."""
    if len(comparisons) < 2:
        return
    of_best = [c for c in comparisons if c["first"] == comparisons[0]["first"]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair")
    for column in ("points", "p (Holm)", "finding"):
        table.add_column(column, justify="left" if column == "finding" else "right")
    for pair in of_best:
        found = pair["parts"]["overall"]
        table.add_row(
            f"{pair['first']} - {pair['second']}",
            _interval(found["difference"]),
            "< 0.001" if found["p_holm"] < 0.001 else f"{found['p_holm']:.3f}",
            found["finding"].replace("_", " "),
        )
    console.print(table)
    console.print()


def _show_front(console: Console, front: Sequence[Mapping[str, Any]]) -> None:
    """The trade-off that a search for several objectives found."""
    if not front:
        return
    costs = [name for name in front[0] if name in objectives.COSTS.values()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trade-off (search)")
    table.add_column("settings")
    for column in ("validation loss", *costs):
        table.add_column(column.replace("_", " "), justify="right")
    for trial in front:
        values = (f"{trial[name]:,.4g}" for name in ("validation_loss", *costs))
        settings = " ".join(f"{k}={_short(v)}" for k, v in trial["parameters"].items())
        table.add_row(trial["arm"], settings, *values)
    console.print(table)
    console.print()


def _name(record: TrialRecord) -> str:
    spec = record.spec
    seed = f" seed {spec.seed}" if spec.kind is Kind.CONFIRM else ""
    return f"{spec.kind} {spec.arm}{seed} {spec.id}"


def _settings(record: TrialRecord) -> str:
    return " ".join(f"{k}={_short(v)}" for k, v in record.spec.parameters.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _interval(estimate: Mapping[str, float]) -> str:
    if estimate["mean"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['mean']:.1f}"
    return f"{estimate['mean']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f})"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
