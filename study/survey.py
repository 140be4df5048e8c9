"""A look at the loaded model and data: what a plan has to know of them, and how fast they train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from search_spaces.declare import Budget, Space
from study import spaces

if TYPE_CHECKING:
    from torch.nn import Module

    from trainables.footprint import BatchShape
    from trainables.models.contract import Structure
    from trainables.probe import Probed
    from trainables.recipe import Applied, Counted, Recipe
    from trainables.regime import Regime
    from trainables.workload import Workload
    from trainables.zero_settings import Sizes


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
    """Type of those on which trials run."""
    arms: Mapping[str, Counted]
    """Arm -> its recipe at typical values, put into the model."""
    sizes: Mapping[str, Sizes]
    """Arm -> what DeepSpeed's configuration follows from."""
    seconds_an_example: float
    """Of training, on one device or processor; a mean of arms. 0 where trials run on other devices
    than were there to measure."""
    probed: Mapping[str, Probed | None] = field(default_factory=dict)
    """Arm -> what three steps take, of those that were looked at; None if not one question fits."""

    def recipes(self, space: Space) -> dict[str, Recipe]:
        """Each arm's at typical values."""
        return {name: spaces.typical(arm, self.slots) for name, arm in space.arms.items()}

    def batch(self, budget: Budget) -> BatchShape:
        """One as large as any will be."""
        from trainables.footprint import BatchShape

        return BatchShape(
            questions=budget.batch_size,
            images=budget.batch_size,
            question_tokens=self.question_tokens,
            answer_tokens=self.answer_tokens,
        )

    def with_probes(self, probed: Mapping[str, Probed | None], budget: Budget) -> Survey:
        """The same, knowing what three steps take. They say how fast arms train too, if no step was
        timed; on a CPU one is, and those that are looked at are slowed down by it."""
        seconds = [found.seconds / budget.batch_size for found in probed.values() if found]
        pace = self.seconds_an_example or sum(seconds) / max(len(seconds), 1)
        return replace(self, probed=probed, seconds_an_example=pace)


def arms(space: Space, model: Structure) -> dict[str, Applied]:
    """Each arm's recipe at typical values, put into a fork of the model.

    Raises:
        BadInput: an arm names a slot that the model lacks, or finds nothing to train.
    """
    return {name: applied for name, (applied, _) in _tuned(space, model).items()}


def _tuned(space: Space, model: Structure) -> dict[str, tuple[Applied, Module]]:
    """The same, each with its fork."""
    from trainables import recipe
    from trainables.fork import fork

    found = {}
    for name, arm in space.arms.items():
        network, typical = fork(model.network), spaces.typical(arm, model.slots)
        found[name] = recipe.apply(typical, model, network, seed=0), network
    return found


def survey(
    workload: Workload,
    space: Space,
    budget: Budget,
    *,
    precision: str,
    device: str,
    regime: Regime,
) -> Survey:
    """Look at what was loaded. ``precision``, ``device`` (its type) and ``regime`` say how its
    trials will compute.

    Raises:
        BadInput: see ``arms``.
    """
    from trainables.recipe import Counted
    from trainables.zero_settings import Sizes

    model, found = workload.model, _tuned(space, workload.model)
    counted = {
        arm: Counted(counts=applied.counts, total_parameters=applied.total_parameters)
        for arm, (applied, _) in found.items()
    }
    sizes = {
        arm: Sizes.of(network, applied.parameters) for arm, (applied, network) in found.items()
    }
    seconds = 0.0
    if workload.device.type == device == "cpu":
        seconds = _pace(workload, space, budget, counted, precision, regime)
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
        device=device,
        arms=counted,
        sizes=sizes,
        seconds_an_example=seconds,
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
    regime: Regime,
) -> float:
    """Seconds of training an example on this machine.

    Measured: a training step of the arms that train least, most and in the middle, on one thread,
    in its own time, since hosts start meanwhile.
    """
    import torch

    from trainables.trial import Trial, TrialConfig

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = []
    order = sorted(arms, key=lambda name: arms[name].trained_parameters)
    for name in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        typical = spaces.typical(space.arms[name], workload.model.slots)
        for size in (2, budget.batch_size):  # the first step of a process sets things up
            config = TrialConfig(
                recipe=typical,
                lr=1e-6,
                seed=0,
                max_examples=10**6,
                batch_size=size,
                regime=regime,
            )
            trial = Trial(workload, config, precision=precision)
            started = time.thread_time()
            trial.step()
            rate = (time.thread_time() - started) / size
        rates.append(rate)
    torch.set_num_threads(threads)
    return sum(rates) / len(rates)
