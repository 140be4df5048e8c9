"""Measures what a device takes for the parts of a trial, so that a study's time can be foretold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.training.trial import Trial

LONG_SECONDS = 2.0
"""Seconds of a first step above which nothing is done twice, and few questions are answered: what
is done once, for the shapes of a step, is little beside so many."""
FEW = 2
"""Number of questions that are answered then."""


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """Seconds that a device takes for one example, or question, in each part of a trial."""

    training: float
    """Seconds of a training step, for each of its examples."""
    frozen: float
    """Seconds of these for the first ``frozen_stages`` of the model; 0 if none is left as it is."""
    validation: float
    """Seconds of a validation loss, for each question."""
    answer: float
    """Seconds of an answer, for each question; 0 if it was not measured."""


def measure(
    trial: Trial, clock: Callable[[], float], *, frozen_stages: int, answers: bool
) -> StepSeconds:
    """Measure a trial that has no features from the cache: each part by the second time that it is
    done, or the only one.

    Args:
        trial: has seen no example. Answers are measured on as many training questions, in the same
            order, as it answers at once.
        clock: time in seconds; what the device computes must be done when it is asked.
        frozen_stages: number of the model's first stages that the trial leaves as they are.
        answers: whether to measure an answer, too. It is as long as answers may be, unless the
            model ends all answers of the batch earlier.
    """
    import torch  # not above: a study's driver reads what was measured, and does without torch

    from trainables.model_contract import run_stages

    size, workload, losses = trial.config.batch_size, trial.workload, trial.losses
    indices = trial.upcoming()

    def once(do: Callable[[], object], count: int) -> float:
        began = clock()
        do()
        return (clock() - began) / count

    training = once(trial.step, size)
    long = training * size > LONG_SECONDS

    def timed(do: Callable[[], object], count: int) -> float:
        found = once(do, count)
        return found if long else once(do, count)

    if not long:
        training = once(trial.step, size)
    questions = range(len(workload.rows["train"]))
    asked = next(trial.evaluation_batches(workload, "train", questions, trial.evaluation_batch))
    asked = asked[:FEW] if long else asked
    batch, few = trial.batch("train", indices), trial.batch("train", asked)
    model, network = workload.model, losses.network
    losses.eval()
    frozen = answer = 0.0
    with torch.no_grad(), losses.autocast(workload.device):
        validation = timed(lambda: losses(batch).sum().item(), size)
        if frozen_stages:
            frozen = timed(
                lambda: run_stages(model, network, batch, frozen_stages).sum().item(), size
            )
        if answers:
            tokens, beams = workload.answer_tokens, workload.beams
            answer = timed(
                lambda: model.answers(network, few, tokens=tokens, beams=beams), len(asked)
            )
    return StepSeconds(training=training, frozen=frozen, validation=validation, answer=answer)
