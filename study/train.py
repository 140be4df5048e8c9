"""``python -m study.train --space S --arm A --set lr=0.003``: train one trial here, by hand.

The trial is that of a study with the same options, with its losses, and needs neither Ray nor
MLflow. Nothing is kept of it. To have it in a study, with Ray and MLflow, give the same options to
``study.launch``.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.execution import single_trial
from study.trials.record import Outcome
from study.trials.text import settings_text
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse, same_option

if TYPE_CHECKING:
    from study.worker.orders import TrialReport
    from trainables.training.trial import Trial

SHOW = "what to show"
"""Title of the group of options that change no number, or only its last digits."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The trial, and how it is shown."""

    space: str = same_option(Settings, "space", required=True)
    arm: str | None = same_option(
        Settings, "arm", metavar="NAME", help="arm of the trial", default="the only one"
    )
    set: list[str] | None = same_option(
        Settings,
        "set",
        metavar="NAME=VALUE",
        help="values of settings: lr=0.003 lora.rank=8",
        default="the middle of each range",
    )
    model: str = same_option(Settings, "model")
    image_size: int | None = same_option(Settings, "image_size")
    data: str = same_option(Settings, "data")
    data_root: str | None = same_option(Settings, "data_root")
    split: str = same_option(Settings, "split")
    max_examples: int | None = same_option(Settings, "max_examples")
    seed: int = same_option(Settings, "seed")
    deepspeed: str = same_option(Settings, "deepspeed")
    precision: str = same_option(Settings, "precision")
    label_smoothing: float = same_option(Settings, "label_smoothing")
    questions_per_image: int = same_option(Settings, "questions_per_image")
    group_by_length: bool = same_option(Settings, "group_by_length")
    beams: int | None = same_option(Settings, "beams")
    every: int = option(1, group=SHOW, help="steps between two losses that are shown")
    threads: int | None = option(
        None,
        group=SHOW,
        help="threads that compute",
        default="1, as in a study on processors; with CUDA all",
    )


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 complete, 1 the trial failed, 2 bad input, 130
    interrupted."""
    given = parse(_parser(), arguments, Request, groups=(SHOW,))
    for name in ("every", "threads"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise BadInput(f"--{name} must be at least 1, got {value}")
    asked = {field.name for field in fields(Settings)} & {field.name for field in fields(Request)}
    definition = StudyDefinition.parse(Settings(**{name: getattr(given, name) for name in asked}))
    point = single_trial.point(definition)
    if point.typical:
        print(f"middle of each range: {settings_text(point.typical)} (--set gives others)")
    print("loading model and data", flush=True)
    trial = single_trial.SingleTrial.load(definition, given.threads)
    spec = trial.spec
    print(f"trial {spec.id}: {spec.arm} {settings_text(spec.parameters, exact=True)}")
    print(
        f"{spec.max_examples:,} examples in batches of {spec.batch_size}, {trial.precision}, "
        f"seed {spec.seed}",
        flush=True,
    )
    began, steps = time.monotonic(), 0

    def stepped(running: Trial) -> None:
        nonlocal steps
        steps += 1
        if steps % given.every == 0 and math.isfinite(running.last_loss):
            lr = running.config.lr_at(running.examples_seen)
            print(
                f"{running.examples_seen:>9,} examples  loss {running.last_loss:.4f}  lr {lr:.3g}  "
                f"{time.monotonic() - began:.1f} s",
                flush=True,
            )

    outcome = None
    for report in trial.train(stepped, print):
        _show(report)
        outcome = report.outcome
    return 0 if outcome is Outcome.COMPLETE else 1


def _show(report: TrialReport) -> None:
    """Print what a trial reports: its rung, and how it ended."""
    if (rung := report.rung) is not None:
        print(
            f"{rung.examples_seen:>9,} examples  validation loss {rung.validation_loss:.6f}  "
            f"train loss {rung.train_loss:.6f}",
            flush=True,
        )
    if report.fault:
        print(f"stopped: {report.fault}")
    if report.outcome is None:
        return
    costs, score = report.costs, report.scores.get("validation.overall")
    parts = [
        str(report.outcome),
        report.error,
        f"validation {score:.1f}%" if score is not None else "",
        f"{costs['trained_parameters']:,.0f} parameters trained"
        if "trained_parameters" in costs
        else "",
        f"{costs['seconds']:.1f} s",
        f"{costs['peak_memory_gib']:.2f} GiB",
        report.remark,
    ]
    print(", ".join(filter(None, parts)))


def _parser() -> Parser:
    return Parser(
        prog="python -m study.train",
        description="Train one trial here, without Ray and MLflow, with the losses that it has in "
        "a study.",
    )


if __name__ == "__main__":
    sys.exit(main())
