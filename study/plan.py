"""What a study will do, shown before it does it: arms, what each trains, rungs, trials, time.

``python -m study.plan --space NAME --model NAME`` counts what each arm trains, without weights;
with ``--batch-size N`` it also predicts the memory that a training step takes, and for what.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from search_spaces.declare import Budget, Choice, Range, Space
from study import predicted, spaces, survey
from study.conductor import floor
from study.placement import Devices, Infeasible, Placement
from study.rungs import levels
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.predicted import Predicted
    from study.survey import Survey
    from trainables.data.audit import Audit
    from trainables.data.dataset import Dataset
    from trainables.footprint import BatchShape
    from trainables.models.contract import Skeleton
    from trainables.recipe import Counted


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
    nowhere: Mapping[str, Infeasible]
    """Arms that fit into no devices there are, and are not run."""

    @property
    def seconds(self) -> tuple[float, float]:
        """How long the study takes: as expected, and if no trial were stopped early. Expected is
        that ``1 / reduction`` of the trials pass each rung."""
        stops = levels(self.budget)
        passing = [self.budget.reduction**-i for i in range(len(stops))]
        legs = [b - a for a, b in zip((0, *stops), stops, strict=False)]
        each = sum(leg * share for leg, share in zip(legs, passing, strict=True))
        confirmed = len(self.space.arms) * self.seeds * stops[-1]
        rate = self.survey.seconds_an_example / self.concurrency
        trials = self.budget.trials
        return rate * (trials * each + confirmed), rate * (trials * stops[-1] + confirmed)

    def show(self, console: Console) -> None:
        """Print it."""
        from trainables.data.scores import shown

        survey, data = self.survey, self.dataset
        stops = levels(self.budget)
        splits = ", ".join(f"{s} {len(examples):,}" for s, examples in data.splits().items())
        chance = self.majority
        expected, most = (_duration(s) for s in self.seconds)
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
            least = floor(self.budget.trials, len(survey.arms), self.allocate)
            trials = f"{self.budget.trials} trials, at least {least} an arm"
        console.print(
            f"  search   {trials}; rungs at "
            f"{', '.join(f'{s:,}' for s in stops[:-1]) or 'none'} of {stops[-1]:,} examples, "
            f"1 in {self.budget.reduction} goes on"
        )
        console.print(
            f"  confirm  {len(survey.arms)} arms x {self.seeds} seeds = "
            f"{len(survey.arms) * self.seeds} trainings, scored on test once"
        )
        console.print(
            f"  compute  {self.concurrency} at a time on {survey.device}, "
            f"{self.precision}" + ("" if self.allowance else f"; about {expected}, at most {most}")
        )
        for placement, placed in self._placed().items():
            whose = "all arms" if len(placed) == len(survey.arms) else ", ".join(placed)
            console.print(f"  devices  {whose}: {placement.shown}")
        for arm, found in self.nowhere.items():
            console.print(f"  [red]not run[/]  {arm}: {found.reason}")
        console.print()
        console.print(_table(self.space, survey.arms))
        console.print()

    def _placed(self) -> dict[Placement, list[str]]:
        """Placement -> the arms that have it."""
        found: dict[Placement, list[str]] = {}
        for arm, placement in self.placements.items():
            found.setdefault(placement, []).append(arm)
        return found


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    given = _parser().parse_args(arguments)
    try:
        _check(given)
        space = spaces.load(given.space)
        from trainables.workload import skeleton_of

        model = skeleton_of(given.model, given.image_size, given.precision)
        applied = survey.arms(space, model)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    memory = {}
    if given.batch_size:
        devices = Devices(count=given.devices, gib=given.device_gib) if given.devices else None
        shape = _shape(given, model)
        memory = predicted.arms(space, model, shape, precision=given.precision, devices=devices)
    if given.json:
        rows = [_row(name, found, memory.get(name)) for name, found in applied.items()]
        print(json.dumps(rows, indent=2))
        return 0
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    parameters = sum(p.numel() for p in model.network.parameters())
    console.print(f"[bold]{space.question}[/]")
    console.print(f"  model    {model.name}, {parameters:,} parameters")
    console.print("  counted  at the middle of each range\n")
    console.print(_table(space, applied))
    if memory:
        console.print(
            f"\nPeak memory of a training step in GiB, for what: {given.precision}, "
            f"{shape.questions} questions about {shape.images} images of {model.image_size} px, "
            f"{shape.question_tokens} + {shape.answer_tokens} tokens each\n"
        )
        console.print(predicted.memory_table(memory))
    if given.devices:
        console.print(f"\nOn {given.devices} devices of {given.device_gib:g} GiB\n")
        console.print(predicted.placement_table(memory))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.plan",
        description="What each arm of a space trains in a model, and the memory it takes; no "
        "weights are needed.",
    )
    parser.add_argument("--space", required=True, metavar="NAME", help="or a file.py of your own")
    parser.add_argument(
        "--model", default="tiny", metavar="NAME", help="'tiny', a preset, or a folder [tiny]"
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels a side [the model's]")
    parser.add_argument("--json", action="store_true", help="a list of objects, one an arm")
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--batch-size", type=int, metavar="N", help="predict the memory of a step with N questions"
    )
    memory.add_argument(
        "--images", type=int, metavar="N", help="different ones among them [as many as questions]"
    )
    memory.add_argument(
        "--question-tokens", type=int, metavar="N", help="of the longest question [all it may have]"
    )
    memory.add_argument(
        "--answer-tokens", type=int, metavar="N", help="of the longest answer [all it may have]"
    )
    memory.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="[fp32]")
    memory.add_argument(
        "--devices", type=int, metavar="N", help="say where each arm would run on N devices"
    )
    memory.add_argument("--device-gib", type=float, metavar="X", help="memory of each of them")
    return parser


def _check(given: argparse.Namespace) -> None:
    """Refuse sizes that cannot be."""
    sizes = ("batch_size", "images", "question_tokens", "answer_tokens", "devices", "device_gib")
    for name in sizes:
        value = getattr(given, name)
        if value is not None and not 1 <= value < math.inf:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if value is not None and given.batch_size is None:
            raise BadInput(f"--{name.replace('_', '-')} is for --batch-size N, which is missing")
    if given.images is not None and given.images > given.batch_size:
        raise BadInput(
            f"--images {given.images} is more than the {given.batch_size} questions of a batch"
        )
    if (given.devices is None) != (given.device_gib is None):
        raise BadInput("--devices N and --device-gib X belong together; give both or neither")


def _shape(given: argparse.Namespace, model: Skeleton) -> BatchShape:
    from trainables.footprint import BatchShape

    return BatchShape(
        questions=given.batch_size,
        images=given.images or given.batch_size,
        question_tokens=given.question_tokens or model.question_tokens,
        answer_tokens=given.answer_tokens or model.answer_tokens,
    )


def _row(name: str, applied: Counted, memory: Predicted | None) -> dict[str, Any]:
    """An arm as JSON. Percentages are of all parameters, adapters included."""
    row: dict[str, Any] = {
        "arm": name,
        "recipe": {count.slot: count.tuning for count in applied.counts},
        "trained_parameters": applied.trained_parameters,
        "total_parameters": applied.total_parameters,
        "percent": applied.trained_percent,
        "slots": [asdict(count) for count in applied.counts],
    }
    return row | (memory.plain() if memory else {})


def _table(space: Space, applied: Mapping[str, Counted]) -> Table:
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


if __name__ == "__main__":
    sys.exit(main())
