"""Predicts the peak memory of a trial, by use, without weights and without running the trial.

A training step is followed on fake tensors: the network, recipe, loss, engine and optimizer of
a trial, with shapes and lifetimes but without memory. So the prediction counts what autograd really
keeps: activations follow what is back-propagated through, not the share of trained parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_iter

from trainables.engine.base import Losses
from trainables.engine.plain_engine import Plain
from trainables.engine.training_settings import DEFAULT_TRAINING, TrainingSettings
from trainables.memory.allocation_tracker import Allocation, Allocations
from trainables.memory.eight_bit_state import EightBitState
from trainables.memory.fake_weights import fake_tensors
from trainables.memory.measure import GIB
from trainables.model_contract import Batch, Model, Skeleton, run_stages
from trainables.recipe import AppliedRecipe

CPU = torch.device("cpu")
BETWEEN = "between"
"""Key of activations outside of slots: between two slots, and of the loss after the last slot."""
STATE = ("weights", "trained", "optimizer")
"""Kinds of memory that are in use all the time."""


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """Size of a batch, padding included."""

    questions: int
    images: int
    """Number of different images."""
    question_tokens: int
    """Number of tokens of a question, those that stand for its image included."""
    answer_tokens: int

    @classmethod
    def measure(cls, batch: Batch) -> BatchShape:
        """Shape of a batch."""
        return cls(
            questions=len(batch.image_B),
            images=len(torch.unique(batch.image_B)),
            question_tokens=batch.question_BQ.shape[1],
            answer_tokens=batch.answer_BA.shape[1],
        )

    def make(self, image_size: int) -> Batch:
        """Make a batch of this shape, with meaningless values."""
        ones = partial(torch.ones, dtype=torch.long)
        return Batch(
            pixels_UCSS=torch.zeros(self.images, 3, image_size, image_size),
            image_B=torch.zeros(self.questions, dtype=torch.long),
            question_BQ=ones(self.questions, self.question_tokens),
            question_mask_BQ=ones(self.questions, self.question_tokens),
            answer_BA=ones(self.questions, self.answer_tokens),
            answer_mask_BA=ones(self.questions, self.answer_tokens),
        )


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a device holds at the peak, by use."""

    weights: int
    """Bytes of the resident base: once on a device, however many trials share it."""
    trained: int
    """Bytes that the trial adds to the base: adapters, and fp32 copies of what it trains."""
    gradients: int
    """Bytes of gradients."""
    optimizer: int
    """Bytes of the optimizer's state."""
    activations: Mapping[str, int]
    """Bytes that each slot keeps for the backward pass."""
    features: Mapping[str, int]
    """Bytes of the output of each slot that nothing is back-propagated through."""
    batch: int
    """Bytes of the batch."""
    workspace: int
    """Bytes that are allocated and freed within a pass."""
    layer: int
    """Bytes of the weights of the largest layer, which ``weights`` or ``trained`` include."""
    copied: int
    """Bytes of ``weights`` that the trial replaces by copies of its own, which ``trained``
    includes."""
    pieces: int
    """Number of pieces of a batch; 2 stands for 2 or more."""
    passes: int
    """Peak bytes beside weights and optimizer while a batch goes through the network and back,
    before the update. The overall peak may be in this phase."""
    passes_alone: int
    """Peak bytes as in ``passes``, if each gradient were freed as soon as it is computed."""
    evaluating: bool
    """Whether the peak is in a validation batch, not in a training step."""

    @property
    def without_base(self) -> int:
        """Bytes of everything but the resident base."""
        state = self.trained + self.gradients + self.optimizer
        kept = sum(self.activations.values()) + sum(self.features.values())
        return state + kept + self.batch + self.workspace

    @property
    def peak(self) -> int:
        """Bytes at the peak, the resident base included."""
        return self.weights + self.without_base

    def gib(self) -> dict[str, Any]:
        """The footprint as JSON-ready values, in GiB."""
        values: dict[str, Any] = {"peak_gib": self.peak / GIB}
        for name, value in vars(self).items():
            if isinstance(value, bool):
                values[name] = value
            elif isinstance(value, Mapping):
                values[f"{name}_gib"] = {slot: size / GIB for slot, size in value.items()}
            else:
                values[f"{name}_gib"] = value / GIB
        return values


def predict(
    model: Model | Skeleton,
    network: nn.Module,
    applied: AppliedRecipe,
    *,
    training: BatchShape,
    evaluation: BatchShape | None = None,
    precision: str = "fp32",
    done: int = 0,
    pieces: int = 1,
    optimizer: str = DEFAULT_TRAINING.optimizer,
) -> Footprint:
    """Predict the footprint of a trial with plain PyTorch on one device.

    ``network`` is a weight-sharing copy of ``model.network`` with the recipe ``applied`` in it; it
    can't be used for anything else afterwards. A batch is computed in ``pieces``, each of shape
    ``training``. Without ``evaluation`` only a training step counts: an evaluation can be cut into
    pieces of any size. The output of the model's first ``done`` stages is read from disk
    (``trainables.training.frozen_features``). ``optimizer`` is the name of the optimizer, as in
    ``TrainingSettings``.
    """
    with FakeTensorMode(), Allocations() as allocations:
        kinds, parameters, unused = fake_tensors(model.network, network, allocations)
        trained = {name: parameters[name] for name in applied.parameters}
        losses = Losses(model, network, precision)
        feed = _Feed(model, losses, allocations, kinds, done)
        recorder = _SlotRecorder(model, losses, allocations, done)
        if trained:
            eight_bit = optimizer == "adamw_8bit"
            settings = DEFAULT_TRAINING if eight_bit else TrainingSettings(optimizer=optimizer)
            plain = Plain(losses, replace(applied, parameters=trained), settings)
            if eight_bit:
                plain.optimizer = EightBitState(plain.optimizer.param_groups, {})
            _fill(plain.optimizer, trained)
            states = [v for state in plain.optimizer.state.values() for v in state.values()]
            kinds |= dict.fromkeys(map(allocations.find, states), "optimizer")
            for parameter in trained.values():
                parameter.register_post_accumulate_grad_hook(recorder.gradient)
            recorder.began = allocations.time
            # The first piece's gradients are in memory while the second is computed; later pieces
            # need no more.
            plain.backward([feed(training) for _ in range(min(pieces, 2))])
            recorder.updates = allocations.time
            plain.update(lr=1e-3)
        trained_until = allocations.time
        if evaluation is not None:
            with torch.no_grad():
                losses.eval()(feed(evaluation))
        return recorder.at_peak(kinds, unused, trained_until, min(pieces, 2))


class _Feed:
    """Makes batches as a trial gets them: with the output of the first ``done`` stages, if any."""

    def __init__(
        self,
        model: Model | Skeleton,
        losses: Losses,
        allocations: Allocations,
        kinds: dict[Allocation, str],
        done: int,
    ) -> None:
        self.model, self.losses, self.allocations = model, losses, allocations
        self.kinds, self.done = kinds, done

    def __call__(self, shape: BatchShape) -> Batch:
        batch = shape.make(self.model.image_size)
        if self.done:
            with self.allocations.paused(), torch.no_grad(), self.losses.autocast(CPU):
                state = run_stages(self.model, self.losses.network, batch, self.done)
            none = torch.empty(0, 3, 0, 0)
            batch = replace(batch, done=self.done, state=state, pixels_UCSS=none)
            kept = self.allocations.find(state)
            kept.label = self.model.stages[self.done - 1].slots[-1]
            self.kinds[kept] = "kept"
        for tensor in vars(batch).values():
            if isinstance(tensor, Tensor):
                self.kinds.setdefault(self.allocations.find(tensor), "batch")
        return batch


def _fill(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Allocate the optimizer's state, which exists from the second step on."""
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class _SlotRecorder:
    """Labels allocations with the slot that is running, and records when each forward pass ran."""

    def __init__(
        self, model: Model | Skeleton, losses: Losses, allocations: Allocations, done: int
    ) -> None:
        self.allocations = allocations
        self.at_first = model.stages[done - 1].slots[-1] if done else BETWEEN
        """Slot whose output a forward pass begins with."""
        self.passes: list[tuple[int, int]] = []
        """Start and end of each forward pass."""
        self.began, self.updates = 0, None
        """Times at which the first pass began, and the update after the last pass."""
        self.gradients: dict[Allocation, int] = {}
        """Time at which each gradient was computed."""
        self.differentiable: dict[str, bool] = dict.fromkeys(model.slots, False)
        """Whether a slot's output is back-propagated through."""
        self.layer = max(
            sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))
            for module in losses.modules()
        )
        losses.register_forward_pre_hook(self._begin)
        losses.register_forward_hook(self._end)
        for name, path in model.slots.items():
            part = losses.network.get_submodule(path)
            part.register_forward_pre_hook(partial(self._enter, name))
            part.register_forward_hook(partial(self._leave, name))

    def gradient(self, parameter: Tensor) -> None:
        """Record that a parameter's gradient was computed or added to."""
        assert parameter.grad is not None
        self.gradients.setdefault(self.allocations.find(parameter.grad), self.allocations.time)

    def at_peak(
        self, kinds: Mapping[Allocation, str], unused: int, trained_until: int, pieces: int
    ) -> Footprint:
        """Footprint at the peak; ``unused`` is the number of bytes of the base that the trial does
        not use."""
        kinds = {**kinds, **dict.fromkeys(self.gradients, "gradients")}
        transient = [a for a in self.allocations.all if kinds.get(a) not in STATE]
        peak = self.allocations.peak()
        sizes: dict[str, int] = {}
        kept: dict[str, int] = dict.fromkeys([*self.differentiable, BETWEEN], 0)
        for allocation in self.allocations.all:
            if not allocation.alive_at(peak):
                continue
            kind = kinds.get(allocation) or self._kind(allocation)
            if kind == "kept":
                kept[str(allocation.label)] += allocation.size
            else:
                sizes[kind] = sizes.get(kind, 0) + allocation.size
        features = {slot for slot, does in self.differentiable.items() if not does}
        return Footprint(
            weights=sizes.get("weights", 0) + unused,
            trained=sizes.get("trained", 0),
            gradients=sizes.get("gradients", 0),
            optimizer=sizes.get("optimizer", 0),
            activations={slot: n for slot, n in kept.items() if n and slot not in features},
            features={slot: n for slot, n in kept.items() if n and slot in features},
            batch=sizes.get("batch", 0),
            workspace=sizes.get("workspace", 0),
            layer=self.layer,
            copied=unused,
            pieces=pieces,
            passes=self._peak((a.size, a.allocated, a.freed) for a in transient),
            passes_alone=self._peak(
                (a.size, a.allocated, self.gradients.get(a, a.freed)) for a in transient
            ),
            evaluating=peak > trained_until,
        )

    def _peak(self, spans: Iterable[tuple[int, int, int | None]]) -> int:
        """Peak bytes before the update, of allocations given as size and times of allocation and
        release."""
        until = self.allocations.time if self.updates is None else self.updates
        changes = [0] * (until + 1)
        for size, allocated, freed in spans:
            if allocated <= until:
                changes[max(allocated, self.began)] += size
            if freed is not None and freed <= until:
                changes[max(freed, self.began)] -= size
        return max(accumulate(changes))

    def _kind(self, allocation: Allocation) -> str:
        """Kind of an allocation: ``kept`` if it outlives its forward pass, else ``workspace``."""
        for begin, end in self.passes:
            if begin < allocation.allocated <= end and allocation.alive_at(end):
                return "kept"
        return "workspace"

    def _begin(self, *_: Any) -> None:
        self.allocations.label = self.at_first
        self.passes.append((self.allocations.time, self.allocations.time))

    def _end(self, *_: Any) -> None:
        self.passes[-1] = (self.passes[-1][0], self.allocations.time)

    def _enter(self, slot: str, *_: Any) -> None:
        self.allocations.label = slot

    def _leave(self, slot: str, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self.differentiable[slot] = any(
                isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_iter(output)
            )
        # A frozen slot's output may be copied before it is used: to a row for each question, say.
        self.allocations.label = BETWEEN if self.differentiable[slot] else slot
