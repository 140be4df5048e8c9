"""Several trials in one forward and backward pass over the frozen base.

Their batches lie side by side in one, so that every layer that is frozen in all of them runs once.
Where trials differ, their rows part: a linear layer multiplies all rows by the base's weight and
adds to each what its own trial's method adds (``trainables.methods.packed``); any other layer that
a trial trained or replaced is run by that trial's own module on its own rows
(``trainables.parting``). Trials share no parameter, so the gradient of the sum of their losses is
to each the gradient of its own.

What a trial owns stays where it is: its network, its parameters, its optimizer. It is in a pack for
a step, and may be in another, or alone, for the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from trainables import engine
from trainables.features import Features
from trainables.fork import fork
from trainables.methods import packed
from trainables.models.contract import Batch, Row, is_norm, run_stages
from trainables.parting import Differences, Parting, SharedNorm, Unpackable, differences
from trainables.rows import Rows, Unclear
from trainables.seeds import seeded
from trainables.trial import Trial
from trainables.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class Guest:
    """A trial that can be in a pack."""

    trial: Trial
    own: Differences
    linear: Mapping[str, packed.Own]
    """Path of a linear layer -> what the trial adds to it."""

    @property
    def drops(self) -> bool:
        """Whether it has dropout."""
        return any(own.dropout for own in self.linear.values())


Segments = Mapping[str, Sequence[tuple[int, int]]]
"""What rows are about -> whose they are: members, and how many each."""


@dataclass(frozen=True, kw_only=True)
class _Stacked:
    """The next batches of several trials side by side."""

    guests: Sequence[Guest]
    indices: Sequence[Sequence[int]]
    """The training questions of each."""
    batch: Batch
    segments: Segments


class Pack:
    """One network for several trials, put together anew when they change."""

    def __init__(self, workload: Workload, features: Features, precision: str) -> None:
        self.workload, self.features = workload, features
        self.network = fork(workload.model.network)
        self.losses = engine.Losses(workload.model, self.network, precision).train()
        self.rows = Rows()
        self._guests: tuple[Guest, ...] = ()
        self._replaced: dict[str, nn.Module] = {}
        self._hooks: list[Any] = []
        self._segments: Segments = {}
        """In the pass that runs."""
        self._ahead: _Stacked | None = None
        """Of the pass that is likely to come; see ``prepare``."""

    @cached_property
    def why_not(self) -> str:
        """Why no trial of this base can be in a pack; empty if it can.

        A base with dropout draws chance for all rows at once, and so not for each trial as alone.
        """
        model, batch, found = self.workload.model, self.workload.batch("train", [0]), []
        network = fork(model.network).train()
        for seed in range(2):
            with seeded("steady", seed), torch.no_grad():
                found.append(model.losses(network, batch))
        return "" if torch.equal(*found) else "the base has dropout"

    @cached_property
    def _image_tokens(self) -> int:
        with torch.no_grad():
            batch = self.workload.batch("train", [0])
            model = self.workload.model
            return run_stages(model, model.network, batch, 1).shape[1]

    def guest(self, trial: Trial) -> Guest:
        """Look whether a trial can be in a pack.

        Raises:
            Unpackable: it can't, and why.
        """
        if not isinstance(trial.engine, engine.Plain):
            raise Unpackable("its engine steps by itself")
        if trial.micro_batch < trial.config.batch_size or trial.ranks.count > 1:
            raise Unpackable("its batch is computed in pieces")
        if trial.checkpointing:
            raise Unpackable("its layers are computed twice")
        if self.why_not:
            raise Unpackable(self.why_not)
        own = differences(self.workload.model.network, trial.losses.network)
        linear = {}
        for path, module in own.modules.items():
            found = packed.own(module)
            if found is not None:
                linear[path] = found
            elif any(isinstance(m, _DropoutNd) and m.p for m in module.modules()):
                raise Unpackable(f"{path} has dropout of its own")
        guest = Guest(trial=trial, own=own, linear=linear)
        if guest.drops and not self._draws_as_alone:
            raise Unpackable("its dropout would draw other masks than alone")
        return guest

    @property
    def _draws_as_alone(self) -> bool:
        """Whether a member's masks (``Rows.dropped``) are those of ``nn.Dropout``: CUDA has a
        kernel of its own for it, which nobody has held against them yet."""
        return self.workload.device.type == "cpu"

    def backward(self, guests: Sequence[Guest]) -> Tensor:
        """Shape (M,): the mean loss of each trial's next batch; its gradient is left in its
        parameters. All have one label smoothing.

        Raises:
            Unclear: trials with dropout can't be in this step.
        """
        self._arrange(tuple(guests))
        indices = [guest.trial.upcoming() for guest in guests]
        ahead, self._ahead = self._ahead, None
        if ahead is None or (ahead.guests, ahead.indices) != (guests, indices):
            ahead = self._stacked(guests, indices)
        self._segments = ahead.segments
        self.losses.smoothing = guests[0].trial.losses.smoothing
        self._set_chance(guests, indices)
        losses_B = self.losses(ahead.batch)
        means_M = torch.stack([some.mean() for some in losses_B.split([*map(len, indices)])])
        means_M.sum().backward()
        return means_M.detach()

    def prepare(self, guests: Sequence[Guest]) -> None:
        """Put the next batches of these trials together already, while the device works off the
        pass before."""
        self._ahead = self._stacked(guests, [guest.trial.upcoming() for guest in guests])

    def forget(self) -> None:
        """Hold on to no trial."""
        self._ahead = None
        self._arrange(())

    def _arrange(self, guests: tuple[Guest, ...]) -> None:
        """Put into the network what these trials have of their own, in place of what was there."""
        if guests == self._guests:
            return
        self._guests = guests
        for path in reversed(self._replaced):
            self._put(path, self._replaced[path])
        self._replaced = {}
        for hook in self._hooks:
            hook.remove()
        paths = {path for guest in guests for path in guest.own.modules}
        for path in sorted(paths, key=lambda path: -path.count(".")):  # what is inside comes first
            self._replaced[path] = module = self.network.get_submodule(path)
            linear = {m: g.linear[path] for m, g in enumerate(guests) if path in g.linear}
            others = {
                m: g.own.modules[path]
                for m, g in enumerate(guests)
                if path in g.own.modules and path not in g.linear
            }
            if linear:
                assert isinstance(module, nn.Linear)
                module = packed.SharedLinear(module, linear, self.rows)
            if others:
                kind = SharedNorm if is_norm(module) else Parting
                module = kind(module, others, self.rows)
            self._put(path, module)
        self._hooks = self._make_hooks(guests)

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        self.network.get_submodule(parent)._modules[name] = module

    def _make_hooks(self, guests: tuple[Guest, ...]) -> list[Any]:
        """Before a slot runs: whose the rows are, and virtual tokens as they are now."""
        model = self.workload.model
        per = {slot: stage.per for stage in model.stages for slot in stage.slots}
        hooks = []
        for slot, path in model.slots.items():
            renewed = [g.own.virtual_tokens[path] for g in guests if path in g.own.virtual_tokens]

            def before(
                *_: Any, about: str = per.get(slot, "question"), renewed: Any = renewed
            ) -> None:
                self.rows.now = self._segments[about]
                for tokens in renewed:
                    tokens.renew()

            hooks.append(self.network.get_submodule(path).register_forward_pre_hook(before))
        return hooks

    def _stacked(self, guests: Sequence[Guest], indices: Sequence[Sequence[int]]) -> _Stacked:
        """The trials' batches side by side. An image that several ask about is there once, unless
        they treat it differently."""
        model, workload = self.workload.model, self.workload
        done, frozen = guests[0].trial.features_done, guests[0].trial.frozen_stages
        segments: dict[str, Sequence[tuple[int, int]]] = {
            "question": [(m, len(some)) for m, some in enumerate(indices)]
        }
        if not any(stage.per == "image" for stage in model.stages[frozen:]):
            # Then no image's row is anybody's, and nobody looks at whose it is.
            segments["image"] = ()
            batch = self.features.batch("train", [i for some in indices for i in some], done)
            return _Stacked(guests=guests, indices=indices, batch=batch, segments=segments)
        rows: list[Row] = []
        used: list[int] = []
        counts = []
        for some in indices:
            own = [workload.rows["train"][i] for i in some]
            images = sorted({row.image for row in own})
            place = {image: len(used) + n for n, image in enumerate(images)}
            rows += [replace(row, image=place[row.image]) for row in own]
            used += images
            counts.append(len(images))
        segments["image"] = list(enumerate(counts))
        if done:
            state = self.features.of_images("train", used, done)
            batch = replace(model.collate(rows, None), done=done, state=state)
        else:
            batch = model.collate(rows, workload.images_NSSC[used])
        batch = batch.to(workload.device)
        return _Stacked(guests=guests, indices=indices, batch=batch, segments=segments)

    def _set_chance(self, guests: Sequence[Guest], indices: Sequence[Sequence[int]]) -> None:
        """Each trial's dropout will draw what it draws when the trial is alone.

        Raises:
            Unclear: a layer could not tell, from how many tokens it gets, how many those are.
        """
        if not any(guest.drops for guest in guests):
            return
        rows = self.workload.rows["train"]
        asked, answered = (
            [max(len(getattr(rows[i], part)) for i in some) for some in indices]
            for part in ("question", "answer")
        )
        images = self._image_tokens
        for member, (guest, q, a) in enumerate(zip(guests, asked, answered, strict=True)):
            pairs = {(max(asked), q), (max(answered), a), (images, images)}
            if len(dict(pairs)) < len(pairs):
                raise Unclear
            self.rows.lengths[member] = dict(pairs)
            self.rows.generators[member] = guest.trial.chance()
