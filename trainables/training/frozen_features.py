"""Computes the output of frozen stages once for all trials and epochs, and maps it from disk.

A recipe that leaves the first stages of a model as they are, say the image encoder, would compute
the same numbers for every epoch of every trial. Here they are computed in one pass over the images
(or over the questions, where the stage that reads them is frozen too), kept on disk and read from
there. Which stages these are follows from what a recipe trains, so trials of a study may differ.

Stored values are in the precision that the trial computes in. bf16 loses nothing there, since the
values go into a matrix product that takes bf16; where they go elsewhere first, a stage says so
(``Stage.kept_whole``), and they are stored as they are. Under fp32 they are fp32, so that losses
are the same to rounding. The names of files are derived from the pixels, the tokens, the weights,
the stage and the precision (``trainables.cache.arrays``). Where no file fits on a disk, trials
compute the frozen stages themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainables.cache.arrays import NoCacheSpace, Progress, cached_array, gib
from trainables.data.common.wording import Asking
from trainables.model_contract import Batch, run_stages
from trainables.recipe import Recipe
from trainables.seeding import seeded
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

VERSION = 2  # part of a file's name; changes when the content of files does
CHUNK = 32  # images, or questions, that go through a stage at once


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Output of the stages for one split."""

    values: NDArray[Any]
    """Values of shape (N, T, D) for images, or (tokens of all questions, D) for questions. bf16 is
    stored as int16, since numpy has no bf16."""
    starts: NDArray[np.int64]
    """Row of each image, or first token of each question, by index."""


class Features:
    """Output of the frozen stages of one workload. A stage is computed when a trial first asks for
    it."""

    def __init__(
        self, workload: Workload, *, precision: str, progress: Progress | None = None
    ) -> None:
        self.workload, self.precision, self.progress = workload, precision, progress
        self.refused: dict[int, str] = {}
        """Reasons why the output of the first n stages is not cached, by n."""
        self._absent: set[tuple[int, str]] = set()
        """Number of stages and split of each output that could not be cached although ``_ready``
        was true."""
        self._tables: dict[tuple[int, str], _Table] = {}
        self._deterministic: dict[int, bool] = {}
        self._asked: dict[tuple[int, Asking], Features] = {
            (workload.division, workload.asking): self
        }
        """Features for all divisions of the data and prompts that were asked for."""

    def asked(self, workload: Workload) -> Features:
        """Features for a workload that differs from this one in how its data are divided and its
        questions asked."""
        key = workload.division, workload.asking
        if key not in self._asked:
            other = copy(self)
            other.workload, other.refused = workload, {}
            other._absent, other._tables = set(), {}
            self._asked[key] = other
        return self._asked[key]

    def frozen_stages(self, recipe: Recipe) -> int:
        """Number of the model's first stages that a recipe leaves as they are: all of their layers
        are frozen, and their output is the same in training mode."""
        model = self.workload.model
        for number, stage in enumerate(model.stages):
            for slot in stage.slots:
                tuning = recipe.slots.get(slot)
                if tuning is not None and tuning.method != "frozen":
                    return number
            if not self._is_deterministic(number):
                return number
        return len(model.stages)

    def usable(self, frozen: int) -> int:
        """Number of the first ``frozen`` stages whose output is cached; it is smaller if disks are
        full."""
        while frozen and not self._ready(frozen):
            frozen -= 1
        return frozen

    def batch(self, split: str, indices: Sequence[int], done: int) -> Batch:
        """Batch of the questions of ``split`` at ``indices``, with the output of ``done``
        stages."""
        return joined([(self, indices)], split, done)

    def question_features(self, split: str, question: int, done: int) -> Tensor:
        """Output of ``done`` stages for a question of ``split``, of shape (Q, D), on the CPU."""
        table = self._table(done, split)
        tokens = len(self.workload.rows[split][question].question)
        return _tensor(table.values[table.starts[question] :][:tokens].copy())

    def image_features(self, split: str, images: Sequence[int], done: int) -> Tensor:
        """Output of ``done`` stages for images of ``split``, of shape (U, T, D), on the CPU."""
        table = self._table(done, split)
        return _tensor(table.values[table.starts[images]])

    @torch.no_grad()
    def _is_deterministic(self, number: int) -> bool:
        """Whether a stage's output in training mode is that of evaluation mode, for any random
        numbers."""
        if number not in self._deterministic:
            model, batch = self.workload.model, self.workload.batch("train", [0])
            network = share_weights(model.network)
            stage = model.stages[number]
            with self._autocast():
                state = run_stages(model, network, batch, number) if number else None
                expected = stage.run(network, batch, state)
                network.train()
                found = []
                for seed in range(2):
                    with seeded("steady", seed):
                        found.append(stage.run(network, batch, state))
            self._deterministic[number] = all(torch.equal(expected, other) for other in found)
        return self._deterministic[number]

    def _ready(self, done: int) -> bool:
        """Whether the output that every trial needs, for training and validation, is available."""
        if done in self.refused:
            return False
        try:
            for split in ("train", "validation"):
                self._table(done, split)
        except NoCacheSpace as error:
            self.refused[done] = str(error)
        return done not in self.refused

    def _is_cached(self, split: str, done: int) -> bool:
        """Whether a table exists or can be made. Disks may have filled up since ``_ready``."""
        if (done, split) not in self._absent:
            try:
                self._table(done, split)
            except NoCacheSpace:
                self._absent.add((done, split))
        return (done, split) not in self._absent

    def _table(self, done: int, split: str) -> _Table:
        if (done, split) not in self._tables:
            self._tables[done, split] = self._make(done, split)
        return self._tables[done, split]

    def _make(self, done: int, split: str) -> _Table:
        """Map the table of ``done`` stages for ``split``; if it does not exist, it is computed.

        Raises:
            NoCacheSpace: no cache folder can hold it.
        """
        rows = self.workload.rows[split]
        stage = self.workload.model.stages[done - 1]
        example = self._compute(done, split, [0])[0]
        dtype = _array(example).dtype
        if stage.per == "image":
            used = sorted({row.image for row in rows})
            # The first question about each image: its batch has the image.
            first = {row.image: i for i, row in reversed(list(enumerate(rows)))}
            order, shape = [first[image] for image in used], (len(used), *example.shape)
            starts = np.full(len(self.workload.images_NSSC), -1)
            starts[used] = np.arange(len(used))
        else:
            lengths = [len(row.question) for row in rows]
            order, shape = list(range(len(rows))), (sum(lengths), example.shape[-1])
            starts = np.cumsum([0, *lengths[:-1]])

        def write(opened: BinaryIO) -> None:
            for start in range(0, len(order), CHUNK):
                for value in self._compute(done, split, order[start : start + CHUNK]):
                    opened.write(_array(value).tobytes())
                if self.progress is not None:
                    self.progress(min(start + CHUNK, len(order)), len(order))

        name = f"{self.workload.dataset.name}-{split}-{'-'.join(stage.slots)}"
        try:
            values = cached_array(
                "features", f"{name}-{self._key(done, split)}", shape, dtype, write
            )
        except NoCacheSpace as error:
            raise NoCacheSpace(
                f"{name} ({' x '.join(map(str, shape))} values of {dtype.itemsize} bytes = "
                f"{gib(shape, dtype):.2f} GiB) can't be kept in {error}"
            ) from error
        return _Table(values=values, starts=starts)

    @torch.no_grad()
    def _compute(self, done: int, split: str, indices: list[int]) -> list[Tensor]:
        """Output on the CPU in the stored type: a tensor for each image, or for each question
        without its padding."""
        workload = self.workload
        below = max((n for n in range(done) if (n, split) in self._tables), default=0)
        batch = self.batch(split, indices, below)
        with self._autocast():
            state = run_stages(workload.model, workload.model.network, batch, done)
        stage = workload.model.stages[done - 1]
        rounded = self.precision == "bf16" and not stage.kept_whole
        state = state.to("cpu", torch.bfloat16 if rounded else state.dtype)
        if stage.per == "image":
            return [*state]
        rows = workload.rows[split]
        return [s[: len(rows[i].question)] for s, i in zip(state, indices, strict=True)]

    def _autocast(self) -> torch.autocast:
        """The types in which trials of this precision compute."""
        low = self.precision == "bf16"
        return torch.autocast(self.workload.device.type, torch.bfloat16, enabled=low)

    def _key(self, done: int, split: str) -> str:
        """Hash of everything that decides the content of a file."""
        model, rows = self.workload.model, self.workload.rows[split]
        parts: list[object] = [
            *(VERSION, torch.__version__, self.workload.device.type, self.precision),
            *(type(model).__name__, model.name, model.digest, self._pixels),
            *(next(model.network.parameters()).dtype, [s.slots for s in model.stages[:done]]),
            [row.image for row in rows],
        ]
        if model.stages[done - 1].per == "question":
            parts.append([row.question for row in rows])
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @cached_property
    def _pixels(self) -> str:
        """Hash of the images, and of one image after the model's own preprocessing."""
        images = self.workload.images_NSSC
        hashed = hashlib.sha256()
        for image in images:
            hashed.update(np.ascontiguousarray(image).data)
        row = replace(self.workload.rows["train"][0], image=0)
        hashed.update(self.workload.model.collate([row], images).pixels_UCSS.numpy().tobytes())
        return hashed.hexdigest()


def joined(parts: Sequence[tuple[Features, Sequence[int]]], split: str, done: int) -> Batch:
    """Batch of questions of ``split``, which may be asked in several ways, with the output of
    ``done`` stages. A part is the features of one way, and the indices of its questions."""
    some, _ = parts[0]
    workload, model = some.workload, some.workload.model
    rows = [features.workload.rows[split][i] for features, asked in parts for i in asked]
    if not done or not all(features._is_cached(split, done) for features, _ in parts):
        return model.collate(rows, workload.images_NSSC).to(workload.device)
    if model.stages[done - 1].per == "image":
        state = some.image_features(split, sorted({row.image for row in rows}), done)
    else:
        pieces = [
            features.question_features(split, i, done) for features, asked in parts for i in asked
        ]
        state = pad_sequence(pieces, batch_first=True)
    batch = model.collate(rows, None)
    return replace(batch, done=done, state=state).to(workload.device)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Values of a tensor in a type that numpy has."""
    found: NDArray[Any] = tensor.view(
        torch.int16 if tensor.dtype == torch.bfloat16 else tensor.dtype
    ).numpy()
    return found


def _tensor(array: NDArray[Any]) -> Tensor:
    """Tensor on an array's memory; inverse of ``_array``."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor
