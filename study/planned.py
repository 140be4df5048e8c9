"""What a study will do, shown before it does it: arms, what each trains, rungs, trials, time."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table

from search_spaces.declare import Budget, Choice, Range, Space
from study import spaces
from study.conductor import floor
from study.placement import Infeasible, Placement
from study.records import Kind
from study.rungs import levels
from study.sampler import groups, points
from trainables import zero_settings

if TYPE_CHECKING:
    from study.survey import Survey
    from trainables.data.audit import Audit
    from trainables.data.dataset import Dataset
    from trainables.recipe import Counted

Value = TypeVar("Value")

DEEPSPEED = "deepspeed.json"
"""In a study's folder: what DeepSpeed is configured with, by arm."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before the first trial."""

    name: str
    question: str
    space: Space
    budget: Budget
    seeds: int
    allocate: str
    """See ``settings.ALLOCATE``."""
    allowance: str
    """``--budget`` if it limits time; empty: the trials are the limit."""
    survey: Survey
    dataset: Dataset
    audit: Audit
    """Of the data."""
    majority: Mapping[str, float]
    """Score of always giving the most frequent answer."""
    deepspeed: str
    precision: str
    concurrency: int
    placements: Mapping[str, Placement]
    """Of each arm's trials."""
    untuned: Placement | None
    """Of the base as it is, which only answers; None if it fits nowhere."""
    corrections: Mapping[str, float]
    """Arm -> what three steps took of memory, to what was predicted of them; empty if none were
    taken."""
    nowhere: Mapping[str, Infeasible]
    """What fits into no devices there are, and is not run: arms, or the untuned model."""

    @property
    def engines(self) -> dict[str, dict[str, Any]]:
        """DeepSpeed's configuration of each arm that has one, at typical values."""
        found = {
            arm: zero_settings.configuration(
                placement.deepspeed,
                self.survey.sizes[arm],
                cuda=self.survey.device == "cuda",
            )
            for arm, placement in self.placements.items()
        }
        return {arm: settings for arm, settings in found.items() if settings}

    def write(self, folder: Path) -> None:
        """What of it is too long to be shown goes into the study's folder."""
        if self.engines:
            content = json.dumps(self.engines, indent=2) + "\n"
            (folder / DEEPSPEED).write_text(content, encoding="utf-8")

    @property
    def trials(self) -> int:
        """Of the search: as many as are asked for, or all there are."""
        return int(min(self.budget.trials, sum(self._points.values())))

    @property
    def _points(self) -> dict[str, float]:
        return {arm: points(group) for arm, group in groups(self.space).items()}

    @property
    def seconds(self) -> tuple[float, float] | None:
        """How long the study takes: as expected, and if no trial were stopped early. Expected is
        that ``1 / reduction`` of the trials pass each rung; what trials that share a device gain by
        it is not counted on. None if no step was timed, or where trials exchange weights or
        gradients: what is timed is a step on one device that has them all."""
        kinds = self.placements.values()
        exchanging = any(p.devices > 1 or zero_settings.divides(p.deepspeed) for p in kinds)
        if exchanging or not self.survey.seconds_an_example:
            return None
        stops = levels(self.budget)
        passing = [self.budget.reduction**-i for i in range(len(stops))]
        legs = [b - a for a, b in zip((0, *stops), stops, strict=False)]
        each = sum(leg * share for leg, share in zip(legs, passing, strict=True))
        confirmed = len(self.space.arms) * self.seeds * stops[-1]
        sharing = max(placement.sharing for placement in self.placements.values())
        rate = self.survey.seconds_an_example / max(self.concurrency / sharing, 1)
        return (
            rate * (self.trials * each + confirmed),
            rate * (self.trials * stops[-1] + confirmed),
        )

    def show(self, console: Console, folder: Path | None = None) -> None:
        """Print it. Of what ``write`` puts into ``folder`` only so much that one knows what it is;
        all of it if there is to be no folder."""
        from trainables.data.scores import shown

        survey, data = self.survey, self.dataset
        stops = levels(self.budget)
        splits = ", ".join(f"{s} {len(examples):,}" for s, examples in data.splits().items())
        chance = self.majority
        console.print(f"[bold]{self.question}[/]")
        console.print(f"  study    {self.name}")
        console.print(
            f"  model    {survey.model}, {survey.parameters:,} parameters, {survey.image_size} px"
        )
        console.print(f"  data     {data.name}: {splits} questions, {survey.images:,} images")
        beams = "greedily" if survey.beams == 1 else f"with {survey.beams} beams"
        console.print(
            f"  answers  at most {survey.answer_tokens} tokens, as 99% of the training "
            f"answers need (at least 10), written {beams}"
        )
        console.print(
            f"  chance   always the most frequent answer scores {chance['overall']:.1f}% ("
            + ", ".join(
                f"{title.removesuffix(' %')} {chance[name]:.1f}"
                for name, title in shown(chance).items()
                if name != "overall"
            )
            + ")"
        )
        for finding in self.audit.findings:
            if finding.severity != "note":
                console.print(f"           [yellow]{finding.text}[/]")
        if self.allowance:
            trials = f"until the confirmation needs what is left of --budget {self.allowance}"
        else:
            least = floor(self.budget.trials, len(self.space.arms), self.allocate)
            fewer = [f"{arm} {count:g}" for arm, count in self._points.items() if count < least]
            trials = f"{self.trials} trials, at least {least} an arm"
            trials += f" (all there are of {', '.join(fewer)})" * bool(fewer)
        rungs = ", ".join(f"{stop:,}" for stop in stops[:-1])
        early = f"rungs at {rungs} of {stops[-1]:,} examples, 1 in {self.budget.reduction} goes on"
        whole = f"{stops[-1]:,} examples each, none is stopped early"
        console.print(f"  search   {trials}; {early if rungs else whole}")
        console.print(
            f"  confirm  {len(self.space.arms)} arms x {self.seeds} seeds = "
            f"{len(self.space.arms) * self.seeds} trainings, scored on test once"
        )
        time = ""
        if self.seconds and not self.allowance:
            time = "; about {}, at most {}".format(*map(_duration, self.seconds))
        console.print(
            f"  compute  {self.concurrency} at a time on {survey.device}, {self.precision}{time}"
        )
        if self.corrections:
            found = self.corrections.values()
            console.print(
                f"  memory   predicted, then corrected by three steps of each arm on a device: "
                f"{min(found):.2f} to {max(found):.2f} of what was predicted"
            )
        for placement, placed in _by_value(self.placements):
            console.print(f"  devices  {self._whose(placed)}: {placement.shown}")
        if self.untuned is not None and self.untuned not in self.placements.values():
            console.print(f"  devices  {Kind.UNTUNED}: {self.untuned.shown}")
        for engine, placed in _by_value(self.engines):
            console.print(f"  engine   {self._whose(placed)}: {zero_settings.in_a_line(engine)}")
            if folder is None:
                console.print(f"           DeepSpeed's configuration: {json.dumps(engine)}")
        if folder is not None and self.engines:
            console.print(f"           DeepSpeed's configuration is in {folder / DEEPSPEED}")
        for arm, lacking in self.nowhere.items():
            console.print(f"  [red]not run[/]  {arm}: {lacking.reason}")
        console.print()
        console.print(arms_table(self.space, {arm: survey.arms[arm] for arm in self.space.arms}))
        console.print()

    def _whose(self, arms: Collection[str]) -> str:
        return "all arms" if len(arms) == len(self.survey.arms) else ", ".join(arms)


def _by_value(of: Mapping[str, Value]) -> list[tuple[Value, list[str]]]:
    """Each value, with the arms that have it."""
    found: list[tuple[Value, list[str]]] = []
    for arm, value in of.items():
        arms = next((arms for other, arms in found if other == value), None)
        if arms is None:
            found.append((value, [arm]))
        else:
            arms.append(arm)
    return found


def arms_table(space: Space, applied: Mapping[str, Counted]) -> Table:
    """An arm a row: what is searched in it, and what it trains."""
    table = Table(title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "searched", "trains", "parameters", "percent"):
        right = column in ("parameters", "percent")
        table.add_column(column, justify="right" if right else "left")
    for arm, found in applied.items():
        searched = spaces.ranges(space.arms[arm]).items()
        table.add_row(
            arm,
            ", ".join(f"{name} {_range(values)}" for name, values in searched),
            _trains(found),
            f"{found.trained_parameters:,}",
            f"{found.trained_percent:.3f}",
        )
    return table


def _trains(applied: Counted) -> str:
    """``layernorm: vision 2,880, fusion 3,200`` or ``vision frozen, fusion full 1,488,480``."""
    if len({count.tuning for count in applied.counts}) == 1:
        slots = ", ".join(f"{c.slot} {c.trained_parameters:,}" for c in applied.counts)
        return f"{applied.counts[0].tuning}: {slots}"
    return ", ".join(
        f"{c.slot} {c.tuning}" + (f" {c.trained_parameters:,}" if c.trained_parameters else "")
        for c in applied.counts
    )


def _range(values: Range) -> str:
    if isinstance(values, Choice):
        return (
            "{"
            + ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values.values)
            + "}"
        )
    return f"{values.low:g} to {values.high:g}"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
