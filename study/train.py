"""``python -m study.train --space S --arm A --set lr=0.003``: train one trial here, by hand.

The trial is that of a study with the same options, with its losses, and needs neither Ray nor
MLflow. Nothing is kept of it, unless ``--tracking-uri`` records it in MLflow. To have it in a
study, by Ray, give the same options to ``study.launch``.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from search_spaces.declare import Range
from study.config import spaces
from study.config.definition import StudyDefinition
from study.config.deployment import Places
from study.config.settings import Settings
from study.execution import single_trial
from study.tracking.mlflow_store import check
from study.trials.record import Outcome
from study.trials.text import settings_text
from study.worker import launchers
from trainables.command import command
from trainables.errors import BadInput
from trainables.options import Parser, option, parse, same_option

if TYPE_CHECKING:
    from study.tracking.mlflow_by_hand import HandRun
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
    prompt: str = same_option(Settings, "prompt")
    system: str = same_option(Settings, "system")
    choose: str = same_option(Settings, "choose")
    max_examples: int | None = same_option(Settings, "max_examples")
    epochs: float | None = same_option(Settings, "epochs")
    seed: int = same_option(Settings, "seed")
    deepspeed: str = same_option(Settings, "deepspeed")
    precision: str = same_option(Settings, "precision")
    base_bits: int | None = same_option(Settings, "base_bits")
    label_smoothing: float = same_option(Settings, "label_smoothing")
    questions_per_image: int = same_option(Settings, "questions_per_image")
    group_by_length: bool = same_option(Settings, "group_by_length")
    beams: int | None = same_option(Settings, "beams")
    tracking_uri: str | None = same_option(
        Places,
        "tracking_uri",
        group=SHOW,
        help="record it as a run of this MLflow store too",
        default="not recorded",
    )
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
    launchers.refuse_copies()
    launchers.forget()
    for name in ("every", "threads"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise BadInput(f"--{name} must be at least 1, got {value}")
    asked = {field.name for field in fields(Settings)} & {field.name for field in fields(Request)}
    definition = StudyDefinition.parse(Settings(**{name: getattr(given, name) for name in asked}))
    point = single_trial.point(definition)
    if given.tracking_uri:
        check(given.tracking_uri)
    if point.typical:
        print(f"middle of each range: {settings_text(point.typical)} (--set gives others)")
    print("loading model and data", flush=True)
    trial = single_trial.SingleTrial.load(definition, given.threads)
    spec = trial.spec
    named = {**spaces.settings(point.arm), **spec.parameters}
    values = {name: value for name, value in named.items() if not isinstance(value, Range)}
    print(f"trial {spec.id}: {spec.arm} {settings_text(values, exact=True)}")
    print(
        f"{spec.max_examples:,} examples "
        f"({spec.max_examples / len(trial.workload.dataset.train):.3g} epochs) in batches of "
        f"{spec.batch_size}, {trial.precision}, seed {spec.seed}",
        flush=True,
    )
    shown = _Shown(given.every, _run(given, trial))
    try:
        for report in trial.train(shown.stepped, print):
            shown.reported(report)
    finally:  # also if it is interrupted
        shown.close()
    return 0 if shown.outcome is Outcome.COMPLETE else 1


def _run(given: Request, trial: single_trial.SingleTrial) -> HandRun | None:
    """The trial's run in MLflow, if it is to be recorded."""
    if not given.tracking_uri:
        return None
    from study.tracking.mlflow_by_hand import HandRun

    arms, bits = trial.definition.space.declared, given.base_bits
    return HandRun(
        given.tracking_uri, given.space, arms, trial.spec, trial.precision, base_bits=bits
    )


class _Shown:
    """Prints what a trial does, and records it in its run if it has one."""

    def __init__(self, every: int, run: HandRun | None) -> None:
        self.every, self.run = every, run
        self.outcome: Outcome | None = None
        """How the trial ended; None before."""
        self._began, self._steps = time.monotonic(), 0

    def stepped(self, trial: Trial) -> None:
        """Print the loss of a step."""
        self._steps += 1
        seen, loss = trial.examples_seen, trial.last_loss
        if not math.isfinite(loss):
            return
        if self.run is not None:
            self.run.stepped(seen, loss)
        if self._steps % self.every == 0:
            lr, seconds = trial.config.lr_at(seen), time.monotonic() - self._began
            print(f"{seen:>9,} examples  loss {loss:.4f}  lr {lr:.3g}  {seconds:.1f} s", flush=True)

    def reported(self, report: TrialReport) -> None:
        """Print a rung, and how the trial ended."""
        if (rung := report.rung) is not None:
            print(
                f"{rung.examples_seen:>9,} examples  validation loss {rung.validation_loss:.6f}  "
                f"train loss {rung.train_loss:.6f}",
                flush=True,
            )
            if self.run is not None:
                self.run.reported(rung)
        if report.fault:
            print(f"stopped: {report.fault}")
        if report.outcome is not None:
            self.outcome = report.outcome
            print(_ended(report))
            if self.run is not None:
                self.run.ended(report.outcome, report.error, report.costs)

    def close(self) -> None:
        """End the run of a trial that did not come to its end."""
        if self.run is None:
            return
        if self.outcome is None:
            self.run.ended(None, "", {})
        if self.run.error:
            print(f"MLflow lacks a part of it: {self.run.error}", flush=True)


def _ended(report: TrialReport) -> str:
    """How a trial ended, and what it cost, in a line."""
    costs, score = report.costs, report.scores.get("validation.overall")
    trained = costs.get("trained_parameters")
    parts = [
        str(report.outcome),
        report.error,
        f"validation {score:.1f}%" if score is not None else "",
        f"{trained:,.0f} parameters trained" if trained is not None else "",
        f"{costs['seconds']:.1f} s",
        f"{costs['peak_memory_gib']:.2f} GiB",
        report.remark,
    ]
    return ", ".join(filter(None, parts))


def _parser() -> Parser:
    return Parser(
        prog="python -m study.train",
        description="Train one trial here, without Ray and MLflow, with the losses that it has in "
        "a study.",
    )


if __name__ == "__main__":
    sys.exit(main())
