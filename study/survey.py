"""A look at the loaded model and data: what a plan has to know of them, and how fast they train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.declare import Budget, Space
from study import spaces

if TYPE_CHECKING:
    from trainables.models.contract import Structure
    from trainables.recipe import Applied, Counted
    from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was learnt from the loaded model and data: all that a plan needs of them, and small."""

    model: str
    """Its name."""
    digest: str
    """See ``Model.digest``."""
    parameters: int
    image_size: int
    """Pixels a side."""
    slots: tuple[str, ...]
    images: int
    question_tokens: int
    """Of the longest question, tokens that stand for its image included."""
    answer_tokens: int
    beams: int
    """See ``Workload``."""
    device: str
    """Type of the device."""
    arms: Mapping[str, Counted]
    """Arm -> its recipe at typical values, put into the model."""
    seconds_an_example: float
    """Of training, on one device or processor; a mean of arms."""


def arms(space: Space, model: Structure) -> dict[str, Applied]:
    """Each arm's recipe at typical values, put into a fork of the model.

    Raises:
        BadInput: an arm names a slot that the model lacks, or finds nothing to train.
    """
    from trainables import recipe
    from trainables.fork import fork
    from trainables.recipe import Recipe

    found = {}
    for name, arm in space.arms.items():
        plain, _ = spaces.draw(arm, model.slots, spaces.middle)
        network = fork(model.network)
        found[name] = recipe.apply(Recipe.of(plain), model, network, seed=0)
    return found


def survey(
    workload: Workload, space: Space, budget: Budget, *, precision: str, questions_per_image: int
) -> Survey:
    """Look at what was loaded; the last two say how its trials will compute.

    Raises:
        BadInput: see ``arms``.
    """
    from trainables.recipe import Counted

    model, found = workload.model, arms(space, workload.model)
    counted = {
        arm: Counted(counts=applied.counts, total_parameters=applied.total_parameters)
        for arm, applied in found.items()
    }
    return Survey(
        model=model.name,
        digest=model.digest,
        parameters=sum(p.numel() for p in model.network.parameters()),
        image_size=model.image_size,
        slots=tuple(model.slots),
        images=len(workload.images_NSSC),
        question_tokens=question_tokens(workload),
        answer_tokens=workload.answer_tokens,
        beams=workload.beams,
        device=workload.device.type,
        arms=counted,
        seconds_an_example=_pace(workload, space, budget, counted, precision, questions_per_image),
    )


def question_tokens(workload: Workload) -> int:
    """Of the longest question to train on, tokens that stand for its image included."""
    rows = workload.rows["train"]
    longest = max(range(len(rows)), key=lambda i: len(rows[i].question))
    return workload.batch("train", [longest]).question_BQ.shape[1]


def _pace(
    workload: Workload,
    space: Space,
    budget: Budget,
    arms: Mapping[str, Counted],
    precision: str,
    questions_per_image: int,
) -> float:
    """Seconds of training an example on this machine.

    Measured: a training step of the arms that train least, most and in the middle, on one thread;
    on a CPU in its own time, since hosts start meanwhile.
    """
    import torch

    from trainables.recipe import Recipe
    from trainables.trial import Trial, TrialConfig

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = []
    clock = time.thread_time if workload.device.type == "cpu" else time.perf_counter
    order = sorted(arms, key=lambda name: arms[name].trained_parameters)
    for name in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        plain, _ = spaces.draw(space.arms[name], workload.model.slots, spaces.middle)
        for size in (2, budget.batch_size):  # the first step of a process sets things up
            config = TrialConfig(
                recipe=Recipe.of(plain),
                lr=1e-6,
                seed=0,
                max_examples=10**6,
                batch_size=size,
                questions_per_image=questions_per_image,
            )
            trial = Trial(workload, config, precision=precision)
            started = clock()
            trial.step()
            rate = (clock() - started) / size
        rates.append(rate)
    torch.set_num_threads(threads)
    return sum(rates) / len(rates)
