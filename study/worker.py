"""What runs on a device: a Ray Tune trainable that keeps model and data, for trial after trial.

With ``reuse_actors`` Tune hands the next trial to a living process: nothing is started, loaded or
read again. One step of the trainable is the way to the trial's next rung.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from study import checkpoints
from study.records import Kind, Outcome, TrialSpec

if TYPE_CHECKING:
    from trainables.trial import Trial
    from trainables.workload import Workload, WorkloadConfig


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What every trial of a study shares."""

    workload: WorkloadConfig
    others: Mapping[str, WorkloadConfig]
    """Data that confirmed trials are scored on too."""
    folder: Path
    """Of the study; the same for all workers."""
    deepspeed: str
    """``off`` or a ZeRO stage."""
    precision: str
    """``fp32`` or ``bf16``."""


class TrialActor(tune.Trainable):
    """One trial after another. Every way in which a trial can end is a result, not a crash."""

    # Tune passes on what ``tune.with_parameters`` was given.
    def setup(self, config: dict[str, Any], *, shared: WorkerConfig) -> None:  # type: ignore[override]
        """Load model and data; called once a process."""
        from trainables.workload import Workload

        self.shared = shared
        self.workload = Workload.load(shared.workload)
        self.others: dict[str, Workload] = {}
        """Loaded when the first trial is confirmed."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing of the one before is kept."""
        self.spec = TrialSpec.of(new_config["trial"])
        self.trial: Trial | None = None
        self.heard: int = new_config["heard"]
        """Examples seen at the last report that the study knows of: a kill may lie between."""
        self.seconds = 0.0
        return True

    def step(self) -> dict[str, Any]:
        """Run to the next rung and report."""
        import torch

        from trainables import memory
        from trainables.trial import Diverged

        self.step_started = time.perf_counter()
        if self.trial is None:
            memory.reset_peak()
        try:
            result = self._advance()
        except Diverged as error:
            result = _ended(Outcome.DIVERGED, str(error))
        except (torch.OutOfMemoryError, MemoryError) as error:
            result = _ended(Outcome.OUT_OF_MEMORY, _one_line(error))
        except Exception as error:  # whatever else a trial does, the study goes on and records it
            traceback.print_exc()
            memory_lacks = "can't allocate memory" in str(error)  # what torch says on a CPU
            outcome = Outcome.OUT_OF_MEMORY if memory_lacks else Outcome.FAILED
            result = _ended(outcome, _one_line(error))
        self.seconds = self._seconds()
        costs = {"seconds": self.seconds, "peak_memory_gib": memory.peak_gib()}
        if self.trial is not None:
            applied = self.trial.applied
            costs["trained_parameters"] = applied.trained_parameters
            costs["trained_percent"] = applied.trained_percent
        if "outcome" in result:
            self.trial = None
        return {"costs": costs, **result}

    def _advance(self) -> dict[str, Any]:
        """Train to the next rung; at the end, answer."""
        trial = self.trial or self._enter()
        ahead = [stop for stop in self.spec.stops if stop > trial.examples_seen]
        result: dict[str, Any] = {}
        if trial.examples_seen > self.heard:
            result["rung"] = trial.report
        elif ahead:
            result["rung"] = self._train(trial, until=ahead.pop(0))
        self.heard = trial.examples_seen
        if not ahead:
            result |= {"outcome": Outcome.COMPLETE, "done": True, "scores": self._answer(trial)}
        return result

    def _train(self, trial: Trial, until: int) -> dict[str, Any]:
        """Train on, and save with what there is to report."""
        report = {
            "train_loss": trial.train(until),
            "validation_loss": trial.validation_loss(),
            "examples_seen": trial.examples_seen,
            "seconds": self._seconds(),
            "reported_at": time.time(),
        }
        trial.save(self._checkpoint, report)
        return report

    def _enter(self) -> Trial:
        from trainables.recipe import Recipe
        from trainables.trial import Trial, TrialConfig

        spec = self.spec
        config = TrialConfig(
            recipe=Recipe.of(spec.recipe),
            lr=spec.lr,
            seed=spec.seed,
            max_examples=spec.max_examples,
            batch_size=spec.batch_size,
        )
        self.trial = Trial(
            self.workload,
            config,
            deepspeed=self.shared.deepspeed,
            precision=self.shared.precision,
        )
        if spec.kind is not Kind.UNTUNED and self.trial.restore(self._checkpoint):
            self.seconds = self.trial.report["seconds"]
        return self.trial

    def _answer(self, trial: Trial) -> dict[str, float]:
        """Accuracies on validation; if this is not the search, on test and on other data too."""
        from study.answers import write
        from trainables.data.scores import score

        asked = {"validation": (self.workload, "validation")}
        if self.spec.kind is not Kind.SEARCH:
            asked["test"] = (self.workload, "test")
            for name, config in self.shared.others.items():
                if name not in self.others:
                    self.others[name] = self.workload.on(config.dataset())
                asked[f"ood.{name}"] = (self.others[name], "test")
        scores: dict[str, float] = {}
        for name, (workload, split) in asked.items():
            examples = workload.dataset.splits()[split]
            answers = trial.answers(split, workload)
            write(self.shared.folder, self.spec.id, name, examples, answers)
            scores |= {f"{name}.{part}": v for part, v in score(examples, answers).items()}
        return scores

    def _seconds(self) -> float:
        """Device-seconds since the trial began, those before a restart included."""
        return self.seconds + time.perf_counter() - self.step_started

    @property
    def _checkpoint(self) -> Path:
        return checkpoints.path(self.shared.folder, self.spec.id)


def _ended(outcome: Outcome, error: str) -> dict[str, Any]:
    return {"outcome": outcome, "error": error, "done": True}


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
