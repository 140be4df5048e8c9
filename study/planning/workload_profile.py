"""Profile of the loaded model and data: what a plan needs of them, and how fast arms train."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.declare import Arm, Budget, Space
from study.config import spaces

if TYPE_CHECKING:
    from torch.nn import Module

    from trainables.engine.deepspeed_config import Sizes
    from trainables.engine.training_settings import TrainingSettings
    from trainables.memory.calibration import MeasuredSteps
    from trainables.memory.footprint import BatchShape
    from trainables.model_contract import Structure
    from trainables.models.common.quantisation import SlotBits
    from trainables.recipe import AppliedRecipe, ParameterCounts, Recipe
    from trainables.training.regime import Regime
    from trainables.training.step_seconds import StepSeconds
    from trainables.workload import Workload

MEASURED = 4
"""Largest number of arms whose steps are timed before the first trial."""


@dataclass(frozen=True, kw_only=True)
class WorkloadProfile:
    """Facts about the loaded model and data: all that a plan needs, and small."""

    model: str
    """Name of the model."""
    digest: str
    """Digest of the model, of version 2; see ``trainables.models.common.model_identity``."""
    digest_1: str
    """Digest of the model's weights and configuration; see ``Model.digest``. Studies that began
    with it go on with it."""
    parameters: int
    """Parameters of the model."""
    image_size: int
    """Pixels a side of an image."""
    slots: tuple[str, ...]
    """Slots of the model."""
    images: int
    """Images of the dataset."""
    question_tokens: int
    """Tokens of the longest question, tokens that stand for its image included."""
    answer_tokens: int
    """Maximum number of tokens of an answer, its end included."""
    beams: int
    """Number of beams in the search for an answer; 1 is greedy."""
    device: str
    """Type of the devices on which trials run."""
    arms: Mapping[str, ParameterCounts]
    """Arm -> what its recipe trains in the model, at typical values."""
    sizes: Mapping[str, Sizes]
    """Arm -> sizes from which DeepSpeed's configuration follows."""
    steps: Mapping[str, StepSeconds]
    """Arm -> what its steps take on one device or processor; empty where trials run on other
    devices than were there to measure."""
    probed: Mapping[str, MeasuredSteps | None] = field(default_factory=dict)
    """Arm -> measurement of three steps, for arms that were measured; None if not even one question
    fits."""

    asked_briefly: bool = False
    """Whether the untuned model can be asked to answer with a word or phrase: it takes instructions
    in the prompt, and not all answers are reports."""
    slot_bits: tuple[SlotBits, ...] = ()
    """What is quantised in each slot."""
    with_image_words: int = 0
    """Questions that have a word which stands for an image in the model's prompt."""
    limiting_positions: int | None = None
    """Number of positions of the model's decoder, if answers are cut off because of it."""
    vectors_alone: tuple[str, ...] = ()
    """Arms that train no matrices, as those of LayerNorm."""
    largest: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> values of its choices with which it trains most; see ``largest``."""

    @property
    def why_answer_tokens(self) -> str:
        """Why answers have ``answer_tokens`` at most, for the plan."""
        if self.limiting_positions is None:
            return "as 99% of the training answers need (at least 10)"
        return (
            f"as {self.model} has {self.limiting_positions} positions for a question and its "
            "answer; longer answers are cut off"
        )

    def recipes(self, space: Space) -> dict[str, Recipe]:
        """Each arm's recipe at typical values."""
        return {
            name: spaces.typical(arm, self.slots, self.largest.get(name, {}))
            for name, arm in space.arms.items()
        }

    def batch(self, budget: Budget) -> BatchShape:
        """Shape of a batch of the budget's size, with the longest texts that there are."""
        from trainables.memory.footprint import BatchShape

        return BatchShape(
            questions=budget.batch_size,
            images=budget.batch_size,
            question_tokens=self.question_tokens,
            answer_tokens=self.answer_tokens,
        )

    def with_probes(self, probed: Mapping[str, MeasuredSteps | None]) -> WorkloadProfile:
        """A copy of the profile with the measurements of three steps. They also say how fast arms
        train, unless steps were timed already. On a CPU they were, and that is preferred: measuring
        memory slows steps down."""
        probes = {arm: found.steps for arm, found in probed.items() if found and found.steps}
        complete = len(probes) == len(self.arms)
        return replace(self, probed=probed, steps=self.steps or (probes if complete else {}))


def largest(arm: Arm, model: Structure) -> dict[str, Any]:
    """Parameter's name -> value with which the arm trains most, for each choice that says by texts
    or tuples where a method acts (``targets``, ``layers``). Each of these values is tried in the
    model, one choice after another, so that one that it cannot have is found before any trial.

    Raises:
        BadInput: the model has no such slot or layers, or finds nothing to train in them.
    """
    chosen: dict[str, Any] = {}
    for name, values in spaces.placing(arm).items():
        trained = {
            number: _trained(spaces.typical(arm, model.slots, {**chosen, name: value}), model)
            for number, value in enumerate(values.values)
        }
        chosen[name] = values.values[max(trained, key=lambda number: trained[number])]
    return chosen


def typical(arm: Arm, model: Structure) -> Recipe:
    """The recipe at the middle of the arm's ranges, and at its ``largest`` choices."""
    return spaces.typical(arm, model.slots, largest(arm, model))


def _trained(chosen: Recipe, model: Structure) -> int:
    """Number of values that a recipe trains in a model."""
    from trainables import recipe
    from trainables.weight_sharing import share_weights

    network = share_weights(model.network)
    return recipe.apply(chosen, model, network, seed=0).trained_parameters


def arms(space: Space, model: Structure) -> dict[str, AppliedRecipe]:
    """Each arm's recipe at typical values, applied to a copy of the model that shares its weights.

    Raises:
        BadInput: an arm names a slot that the model lacks, or finds nothing to train.
    """
    recipes = {name: typical(arm, model) for name, arm in space.arms.items()}
    return {name: applied for name, (applied, _) in _tuned(recipes, model).items()}


def _tuned(
    recipes: Mapping[str, Recipe], model: Structure
) -> dict[str, tuple[AppliedRecipe, Module]]:
    """Each arm's recipe, and the weight-sharing copy of the model that it was applied to."""
    from trainables import recipe
    from trainables.weight_sharing import share_weights

    found = {}
    for name, chosen in recipes.items():
        network = share_weights(model.network)
        found[name] = recipe.apply(chosen, model, network, seed=0), network
    return found


def profile(
    workload: Workload,
    space: Space,
    budget: Budget,
    *,
    precision: str,
    device: str,
    regime: Regime,
) -> WorkloadProfile:
    """Profile the loaded model and data. ``precision``, ``device`` (its type) and ``regime`` say
    how the study's trials will compute.

    Raises:
        BadInput: an arm names a slot that the model lacks, or finds nothing to train.
    """
    from trainables.engine.deepspeed_config import Sizes
    from trainables.models.common.quantisation import slot_bits
    from trainables.recipe import ParameterCounts
    from trainables.shared_layers.quantised_linear import count_values

    model = workload.model
    chosen = {name: largest(arm, model) for name, arm in space.arms.items()}
    recipes = {n: spaces.typical(arm, model.slots, chosen[n]) for n, arm in space.arms.items()}
    found = _tuned(recipes, model)
    counted = {
        arm: ParameterCounts(counts=applied.counts, total_parameters=applied.total_parameters)
        for arm, (applied, _) in found.items()
    }
    sizes = {
        arm: Sizes.measure(network, applied.parameters) for arm, (applied, network) in found.items()
    }
    steps: dict[str, StepSeconds] = {}
    if workload.device.type == device == "cpu":
        trainings = {name: spaces.typical_training(arm) for name, arm in space.arms.items()}
        steps = _step_seconds(workload, recipes, trainings, budget, counted, precision, regime)
    return WorkloadProfile(
        model=model.name,
        digest=workload.digest,
        digest_1=model.digest,
        parameters=count_values(model.network),
        image_size=model.image_size,
        slots=tuple(model.slots),
        images=len(workload.images_NSSC),
        question_tokens=question_tokens(workload, space),
        answer_tokens=workload.answer_tokens,
        limiting_positions=workload.limiting_positions,
        beams=workload.beams,
        device=device,
        arms=counted,
        sizes=sizes,
        steps=steps,
        slot_bits=slot_bits(model),
        with_image_words=_with_image_words(workload),
        vectors_alone=vectors_alone({arm: applied for arm, (applied, _) in found.items()}),
        largest=chosen,
    )


def vectors_alone(applied: Mapping[str, AppliedRecipe]) -> tuple[str, ...]:
    """Arms that train no matrices."""
    from trainables.engine.optimizers import is_vector

    return tuple(
        arm
        for arm, found in applied.items()
        if all(is_vector(name, parameter) for name, parameter in found.parameters.items())
    )


def question_tokens(workload: Workload, space: Space) -> int:
    """Tokens of the longest question to train on, with its prompt and with tokens that stand for
    its image: the most of all ways in which arms of ``space`` ask.

    Raises:
        BadInput: the model cannot be asked in one of these ways.
    """
    found = []
    for asking in spaces.askings(space, workload.asking):
        asked = workload.asked(asking)
        rows = asked.rows["train"]
        longest = max(range(len(rows)), key=lambda i: len(rows[i].question))
        found.append(asked.batch("train", [longest]).question_BQ.shape[1])
    return max(found)


def _with_image_words(workload: Workload) -> int:
    """Number of questions that have, in them or in an option or the answer, a word which stands for
    an image."""
    from trainables.models.common.prompt import image_words

    words = image_words(workload.model)
    return sum(
        any(word in text for word in words for text in (e.question, e.answer, *e.options))
        for split in workload.dataset.splits().values()
        for e in split
    )


def _step_seconds(
    workload: Workload,
    recipes: Mapping[str, Recipe],
    trainings: Mapping[str, TrainingSettings],
    budget: Budget,
    arms: Mapping[str, ParameterCounts],
    precision: str,
    regime: Regime,
) -> dict[str, StepSeconds]:
    """What each arm's steps take on this machine, on one thread and in processor time of that
    thread, since hosts start meanwhile.

    Each of at most ``MEASURED`` arms is measured with its own prompt and optimizer: those that
    train least and most, and others between them. The rest take as long as these on average, and
    answers of all as long as those of the first.
    """
    import torch

    from trainables.training.frozen_features import Features
    from trainables.training.step_seconds import StepSeconds, measure
    from trainables.training.trial import Trial
    from trainables.training.trial_config import TrialConfig

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    order = sorted(arms, key=lambda name: arms[name].trained_parameters)
    chosen = [order[round(i)] for i in np.linspace(0, len(order) - 1, min(len(order), MEASURED))]
    features, found = Features(workload, precision=precision), dict[str, StepSeconds]()
    for name in chosen:
        config = TrialConfig(
            recipe=recipes[name],
            lr=1e-6,
            seed=0,
            max_examples=10**6,
            batch_size=budget.batch_size,
            regime=regime,
            training=trainings[name],
        )
        found[name] = measure(
            Trial(workload, config, precision=precision),
            time.thread_time,
            frozen_stages=features.frozen_stages(recipes[name]),
            answers=not found,
        )
    torch.set_num_threads(threads)
    answer, several = found[chosen[0]].answer, found.values()
    mean = StepSeconds(
        training=statistics.mean(s.training for s in several),
        frozen=statistics.mean(s.frozen for s in several),
        validation=statistics.mean(s.validation for s in several),
        answer=answer,
    )
    return {name: replace(found.get(name, mean), answer=answer) for name in arms}
