"""Trains several trials in one forward and backward pass over the frozen base.

Their batches are joined to one, so that every layer that is frozen in all of them runs once. Where
trials differ, their rows are computed separately. A linear layer multiplies all rows by the base's
weight and adds to each what its own trial's method adds
(``trainables.shared_layers.shared_linear``). Any other layer that a trial trained or replaced is
run by that trial's own module on its own rows (``trainables.shared_layers.split_layer``). Trials
share no parameter, so the gradient of the sum of their losses is to each the gradient of its own.

A trial keeps its own network, parameters and optimizer. It is in a pack for one step, and may be in
another, or alone, for the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from trainables.engine import base, plain_engine
from trainables.engine.training_settings import COARSE
from trainables.model_contract import Batch, Row, is_gated, is_norm, run_stages
from trainables.packing.network_diff import Differences, Unpackable, differences
from trainables.seeding import seeded
from trainables.shared_layers import shared_linear
from trainables.shared_layers.row_owners import PaddingUnknown, RowOwners
from trainables.shared_layers.split_layer import SharedNorm, SplitLayer
from trainables.training.frozen_features import Features, joined
from trainables.training.trial import Trial
from trainables.weight_sharing import share_weights
from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class PackMember:
    """A trial that can be in a pack."""

    trial: Trial
    engine: plain_engine.Plain
    """The trial's engine."""
    differences: Differences
    """Differences between the trial's network and the base."""
    deltas: Mapping[str, shared_linear.TrialDelta]
    """What the trial adds to each linear layer, by the layer's path."""

    @property
    def has_dropout(self) -> bool:
        """Whether the trial has dropout."""
        return any(delta.dropout for delta in self.deltas.values())


Segments = Mapping[str, Sequence[tuple[int, int]]]
"""Owners of rows, by what the rows are about (``image`` or ``question``): pairs of a member and its
number of rows."""


@dataclass(frozen=True, kw_only=True)
class _JoinedBatch:
    """One batch that joins the next batches of several trials."""

    members: Sequence[PackMember]
    indices: Sequence[Sequence[int]]
    """Indices of each trial's training questions."""
    batch: Batch
    segments: Segments


class Pack:
    """One network for several trials, rearranged when they change."""

    def __init__(self, workload: Workload, features: Features) -> None:
        self.workload, self.features = workload, features
        self.network = share_weights(workload.model.network)
        self.losses = base.Losses(workload.model, self.network, features.precision).train()
        self.rows = RowOwners()
        self._members: tuple[PackMember, ...] = ()
        self._replaced: dict[str, nn.Module] = {}
        self._hooks: list[Any] = []
        self._segments: Segments = {}
        """Owners of rows in the current pass."""
        self._ahead: _JoinedBatch | None = None
        """Batch of the pass that is likely to be next, made early by ``prepare``."""

    @cached_property
    def no_pack_reason(self) -> str:
        """Reason why no trial of this base can be in a pack; empty if trials can.

        A base with dropout draws random numbers for all rows at once, so a trial would get other
        random numbers than alone.
        """
        model, batch, losses = self.workload.model, self.workload.batch("train", [0]), []
        network = share_weights(model.network).train()
        for seed in range(2):
            with seeded("steady", seed), torch.no_grad():
                losses.append(model.losses(network, batch))
        return "" if torch.equal(*losses) else "the base has dropout"

    @cached_property
    def _image_tokens(self) -> set[int]:
        """Numbers of tokens of an image after each stage that reads images."""
        model, found = self.workload.model, set()
        with torch.no_grad():
            batch = self.workload.batch("train", [0])
            for number, stage in enumerate(model.stages, start=1):
                if stage.per == "image":
                    found.add(run_stages(model, model.network, batch, number).shape[1])
        return found

    def member_of(self, trial: Trial) -> PackMember:
        """Make a ``PackMember`` of a trial.

        Raises:
            Unpackable: the trial can't be in a pack; the message says why.
        """
        engine = trial.engine
        if not isinstance(engine, plain_engine.Plain):
            raise Unpackable("its engine steps by itself")
        if trial.micro_batch < trial.config.batch_size or trial.ranks.count > 1:
            raise Unpackable("its batch is computed in pieces")
        if trial.activation_checkpointing:
            raise Unpackable("its layers are computed twice")
        optimizer = trial.config.training.optimizer
        if optimizer in COARSE and self.features.precision == "fp32":
            raise Unpackable(
                f"{optimizer} computes in fewer bits than fp32, and would amplify rounding"
            )
        if self.no_pack_reason:
            raise Unpackable(self.no_pack_reason)
        differing = differences(self.workload.model.network, trial.losses.network)
        self._check_rows(differing)
        deltas = {}
        for path, module in differing.modules.items():
            delta = shared_linear.delta_of(module)
            if delta is not None:
                deltas[path] = delta
            elif any(isinstance(m, _DropoutNd) and m.p for m in module.modules()):
                raise Unpackable(f"{path} has dropout of its own")
        member = PackMember(trial=trial, engine=engine, differences=differing, deltas=deltas)
        if member.has_dropout and not self._draws_as_alone:
            raise Unpackable("its dropout would draw other masks than alone")
        return member

    def _check_rows(self, differing: Differences) -> None:
        """Check that the layers in which a trial differs get a row for each image or question.

        Raises:
            Unpackable: some do not, so that it can't be told which of their rows are the trial's.
        """
        model = self.workload.model
        for stage in model.stages:
            within = tuple(f"{model.slots[slot]}." for slot in stage.slots)
            paths = (*differing.modules, *(f"{path}." for path in differing.virtual_tokens))
            if stage.shared_rows and any(path.startswith(within) for path in paths):
                raise Unpackable(stage.shared_rows)

    @property
    def _draws_as_alone(self) -> bool:
        """Whether ``RowOwners.dropout`` draws the masks of ``nn.Dropout``. On CUDA, ``nn.Dropout``
        has a kernel of its own, with which the masks have not been compared yet."""
        return self.workload.device.type == "cpu"

    def backward(self, members: Sequence[PackMember]) -> Tensor:
        """Back-propagate each trial's next batch; returns the mean losses, of shape (M,).

        The gradient, clipped, is left in the trials' parameters. All trials must have the same
        label smoothing.

        Raises:
            PaddingUnknown: trials with dropout can't take part in this step.
        """
        self._arrange(tuple(members))
        indices = [member.trial.upcoming() for member in members]
        ahead, self._ahead = self._ahead, None
        if ahead is None or (ahead.members, ahead.indices) != (members, indices):
            ahead = self._join(members, indices)
        self._segments = ahead.segments
        self.losses.smoothing = members[0].trial.losses.smoothing
        self._set_dropout_generators(members, indices)
        losses_B: Tensor = self.losses(ahead.batch)
        counts = [*map(len, indices)]
        if len({*counts}) == 1:
            means_M = losses_B.view(len(counts), -1).mean(1)
        else:
            means_M = torch.stack([some.mean() for some in losses_B.split(counts)])
        means_M.sum().backward()
        plain_engine.clip([member.engine for member in members])
        return means_M.detach()

    def prepare(self, members: Sequence[PackMember]) -> None:
        """Join the trials' next batches early, while the device computes the previous pass."""
        self._ahead = self._join(members, [member.trial.upcoming() for member in members])

    def forget(self) -> None:
        """Release all trials."""
        self._ahead = None
        self._arrange(())

    def _arrange(self, members: tuple[PackMember, ...]) -> None:
        """Put layers for these trials into the network, in place of those for the trials before."""
        if members == self._members:
            return
        self._members = members
        for path in reversed(self._replaced):
            self._put(path, self._replaced[path])
        self._replaced = {}
        for hook in self._hooks:
            hook.remove()
        paths = {path for member in members for path in member.differences.modules}
        for path in sorted(paths, key=lambda path: -path.count(".")):  # inner modules first
            self._replaced[path] = module = self.network.get_submodule(path)
            deltas = {
                index: member.deltas[path]
                for index, member in enumerate(members)
                if path in member.deltas
            }
            others = {
                index: member.differences.modules[path]
                for index, member in enumerate(members)
                if path in member.differences.modules and path not in member.deltas
            }
            if deltas:
                assert isinstance(module, nn.Linear)
                module = shared_linear.SharedLinear(module, deltas, self.rows)
            if others:
                whole = is_norm(module) and not is_gated(module)
                kind = SharedNorm if whole else SplitLayer
                module = kind(module, others, self.rows)
            self._put(path, module)
        self._hooks = self._make_hooks(members)

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        self.network.get_submodule(parent)._modules[name] = module

    def _make_hooks(self, members: tuple[PackMember, ...]) -> list[Any]:
        """Add hooks before each slot, which set the owners of its rows and renew virtual tokens."""
        model = self.workload.model
        per = {slot: stage.per for stage in model.stages for slot in stage.slots}
        hooks = []
        for slot, path in model.slots.items():
            tokens = [member.differences.virtual_tokens.get(path) for member in members]
            renewed = [some for some in tokens if some is not None]

            def before(
                *_: Any, about: str = per.get(slot, "question"), renewed: Any = renewed
            ) -> None:
                self.rows.owners = self._segments[about]
                for tokens in renewed:
                    tokens.renew()

            hooks.append(self.network.get_submodule(path).register_forward_pre_hook(before))
        return hooks

    def _join(
        self, members: Sequence[PackMember], indices: Sequence[Sequence[int]]
    ) -> _JoinedBatch:
        """Join the trials' batches. An image that several trials ask about is included once, unless
        they process it differently."""
        model, workload = self.workload.model, self.workload
        done, frozen = members[0].trial.features_done, members[0].trial.frozen_stages
        segments: dict[str, Sequence[tuple[int, int]]] = {
            "question": [(m, len(some)) for m, some in enumerate(indices)]
        }
        if not any(stage.per == "image" for stage in model.stages[frozen:]):
            # All trials process images alike, so rows of images need no owners.
            segments["image"] = ()
            asked_by = [self.features.asked(member.trial.workload) for member in members]
            batch = joined(list(zip(asked_by, indices, strict=True)), "train", done)
            return _JoinedBatch(members=members, indices=indices, batch=batch, segments=segments)
        rows: list[Row] = []
        used: list[int] = []
        counts = []
        for member, some in zip(members, indices, strict=True):
            asked = [member.trial.workload.rows["train"][i] for i in some]
            images = sorted({row.image for row in asked})
            position = {image: len(used) + n for n, image in enumerate(images)}
            rows += [replace(row, image=position[row.image]) for row in asked]
            used += images
            counts.append(len(images))
        segments["image"] = list(enumerate(counts))
        if done:
            features = self.features.asked(members[0].trial.workload)
            state = features.image_features("train", used, done)
            batch = replace(model.collate(rows, None), done=done, state=state)
        else:
            batch = model.collate(rows, workload.images_NSSC[used])
        batch = batch.to(workload.device)
        return _JoinedBatch(members=members, indices=indices, batch=batch, segments=segments)

    def _set_dropout_generators(
        self, members: Sequence[PackMember], indices: Sequence[Sequence[int]]
    ) -> None:
        """Give each trial's dropout the random numbers that it has when the trial is alone.

        Raises:
            PaddingUnknown: a layer could not tell, from its number of tokens, how many of them are
                padding.
        """
        if not any(member.has_dropout for member in members):
            return
        rows = [
            [member.trial.workload.rows["train"][i] for i in some]
            for member, some in zip(members, indices, strict=True)
        ]
        asked, answered = (
            [max(len(getattr(row, part)) for row in some) for some in rows]
            for part in ("question", "answer")
        )
        images = self._image_tokens
        for index, (member, q, a) in enumerate(zip(members, asked, answered, strict=True)):
            pairs = {(max(asked), q), (max(answered), a), *((n, n) for n in images)}
            if len(dict(pairs)) < len(pairs):
                raise PaddingUnknown
            self.rows.lengths[index] = dict(pairs)
            self.rows.generators[index] = member.trial.dropout_generator()
