"""Records a trial that is trained by hand as a run of MLflow, beside those of studies.

The run is in the experiment of its search space and has the tag ``kind`` = ``by hand``. It is the
run of no study, and each training makes a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from study.config.deployment import Places
from study.storage.paths import MLFLOW_ARTIFACTS
from study.tracking.mlflow_database import sqlite_file
from study.tracking.mlflow_runs import BY_HAND, COLOUR, MlflowRuns
from study.tracking.mlflow_store import check, unusable
from study.trials.colours import arm_colours
from study.trials.record import Outcome, Rung
from study.trials.spec import TrialSpec
from trainables.secrecy import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Metric

MOST_METRICS = 1000
"""Metrics that MLflow takes in one request."""


class HandRun:
    """The run of one trial. Losses of steps are written with the next rung."""

    def __init__(
        self,
        uri: str,
        space: str,
        arms: Sequence[str],
        spec: TrialSpec,
        precision: str,
        *,
        base_bits: int | None = None,
    ) -> None:
        """Make the run. ``space`` is the search space, whose file names the experiment, and
        ``arms`` are all of its arms, by which the run has its colour.

        Raises:
            BadInput: the store cannot be reached or written.
        """
        from mlflow.exceptions import MlflowException

        check(uri)
        file = sqlite_file(uri)
        # If this run makes the experiment, its files are to lie where those of studies do.
        artifacts = (file.parent if file else Path(Places.storage)) / MLFLOW_ARTIFACTS
        runs = MlflowRuns(uri, experiment=Path(space).stem, artifacts=artifacts)
        self._runs = runs
        self.error = ""
        """Error, in one line, that stopped the writing; empty if none did."""
        self._losses: list[Metric] = []
        self._seen = 0
        colour = arm_colours(arms)[spec.arm]
        tags = {"kind": BY_HAND, "trial": spec.id, "arm": spec.arm, COLOUR: colour}
        parameters = {
            "arm": spec.arm,
            "lr": spec.lr,
            **spec.trained_with,
            **spec.parameters,
            "seed": spec.seed,
            "max_examples": spec.max_examples,
            "batch_size": spec.batch_size,
            "precision": precision,
            **({} if base_bits is None else {"base_bits": base_bits}),
        }
        try:
            made = runs.client.create_run(
                runs.experiment_id, tags=tags, run_name=f"{spec.arm}-{spec.id} {BY_HAND}"
            )
            self.id = str(made.info.run_id)
            runs.log(self.id, params=parameters)
        except MlflowException as error:
            raise unusable(uri, error) from None

    def stepped(self, examples_seen: int, loss: float) -> None:
        """Note the loss of a step."""
        self._seen = examples_seen
        self._note("step_loss", loss, examples_seen)

    def reported(self, rung: Rung) -> None:
        """Write a rung, and the losses of the steps before it."""
        self._note("validation_loss", rung.validation_loss, rung.examples_seen)
        self._note("train_loss", rung.train_loss, rung.examples_seen)
        self._write()

    def ended(self, outcome: Outcome | None, error: str, costs: Mapping[str, float]) -> None:
        """Write how the trial ended; ``outcome`` is None for one that was interrupted."""
        for name, value in costs.items():
            self._note(name, value, self._seen)
        self._write()
        told = {"outcome": str(outcome or "interrupted"), "error": error}
        status = {Outcome.COMPLETE: "FINISHED", None: "KILLED"}.get(outcome, "FAILED")
        self._try(lambda: self._runs.log(self.id, tags={k: t for k, t in told.items() if t}))
        self._try(lambda: self._runs.client.set_terminated(self.id, status))

    def _note(self, name: str, value: float, step: int) -> None:
        from mlflow.entities import Metric

        self._losses.append(Metric(name, float(value), int(time.time() * 1000), step))

    def _write(self) -> None:
        losses, self._losses = self._losses, []
        for start in range(0, len(losses), MOST_METRICS):
            some = losses[start : start + MOST_METRICS]
            self._try(partial(self._runs.log, self.id, metrics=some))

    def _try(self, work: Callable[[], object]) -> None:
        """Write something, unless writing has failed before: the training goes on without it."""
        from mlflow.exceptions import MlflowException

        if self.error:
            return
        try:
            work()
        except (MlflowException, OSError) as error:
            self.error = without_secrets(str(error)).splitlines()[0]
