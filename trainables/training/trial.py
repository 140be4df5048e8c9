"""Trains one trial: a recipe on a workload up to a budget, with its validation loss and answers.

The clock is ``examples_seen``. Data order, schedule, dropout and initial values depend on the
trial's configuration and this clock alone, so a trial that is stopped and restored goes on as if
nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainables import recipe
from trainables.devices import accelerator
from trainables.engine import base, plain_engine, ranks
from trainables.engine.activation_checkpointing import checkpoint_layers
from trainables.engine.deepspeed_config import partitions_weights
from trainables.engine.start import start_engine
from trainables.errors import BadInput
from trainables.model_contract import Batch
from trainables.seeding import derive_seed, seeded
from trainables.training import checkpoint
from trainables.training.data_order import DataOrder
from trainables.training.frozen_features import Features
from trainables.training.likeliest import likeliest, likelihoods
from trainables.training.trial_config import TrialConfig
from trainables.weight_sharing import share_weights
from trainables.workload import Workload

EVALUATION_BATCH = 128


class Diverged(RuntimeError):
    """The loss is no longer finite."""


class Trial:
    """A running trial. It owns what it trains; all else is the workload's."""

    def __init__(
        self,
        workload: Workload,
        config: TrialConfig,
        *,
        deepspeed: str = "off",
        precision: str = "fp32",
        features: Features | None = None,
        micro_batch: int | None = None,
        evaluation_batch: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        """Apply the recipe to a weight-sharing copy of the workload's network and start the engine.

        Args:
            workload: model and data.
            config: configuration of the trial.
            deepspeed: kind of the engine; see ``trainables.engine.start``.
            precision: ``fp32`` or ``bf16``.
            features: frozen features of this workload in this precision, shared by its trials.
            micro_batch: maximum number of questions computed at once in training, for where a whole
                batch would take too much memory.
            evaluation_batch: maximum number of questions computed at once in evaluation.
            activation_checkpointing: whether layers recompute their activations in the backward
                pass (``trainables.engine.activation_checkpointing``).

        Apart from ``precision``, no option changes a loss by more than rounding, except through
        dropout: its masks are drawn for each piece of a batch.

        Raises:
            BadInput: the ranks of a gang cannot share a batch evenly, or the model cannot be asked
                as the trial asks it.
        """
        self.asking = config.training.asking(workload.asking)
        """Prompt and system message with which the trial is trained and asked."""
        workload = workload.divided(config.split).asked(self.asking)
        features = features.asked(workload) if features else None
        self.workload, self.config, self.features = workload, config, features
        self.ranks = ranks.current()
        self.micro_batch = micro_batch or config.batch_size
        self.activation_checkpointing = activation_checkpointing
        self.evaluation_batch = evaluation_batch or EVALUATION_BATCH
        self.deepspeed = deepspeed
        if config.batch_size % self.ranks.count:
            raise BadInput(
                f"batch_size {config.batch_size} is not a multiple of {self.ranks.count} workers"
            )
        self.order = DataOrder(
            workload.rows["train"],
            seed=config.seed,
            batch_size=config.batch_size,
            questions_per_image=config.regime.questions_per_image,
            by_length=config.regime.group_by_length,
        )
        self.examples_seen = 0
        self.last_loss = math.nan
        """Loss of the last step."""
        self._ahead: tuple[int, list[Batch]] = 0, []
        """Examples seen before the next step, and the step's pieces if they were made early
        (``Workload.computes_ahead``)."""
        self.report: dict[str, Any] = {}
        """Values that were reported at the restored checkpoint."""
        self.broken: list[int] = []
        """Examples seen of later checkpoints, which were damaged and could not be restored."""
        network = share_weights(workload.model.network)
        self.applied = recipe.apply(config.recipe, workload.model, network, seed=config.seed)
        if activation_checkpointing:
            checkpoint_layers(network)
        if not workload.resident and not partitions_weights(deepspeed):
            network.to(workload.device)
        self.frozen_stages = features.frozen_stages(config.recipe) if features else 0
        """Number of the model's first stages that the recipe leaves as they are."""
        self.features_done = features.usable(self.frozen_stages) if features else 0
        """Number of the model's first stages whose output is read from the cache."""
        self.losses = base.Losses(
            workload.model, network, precision, smoothing=config.label_smoothing
        )
        self.engine = (
            start_engine(deepspeed, self.losses, self.applied, config.training)
            if self.applied.parameters or partitions_weights(deepspeed)
            else None
        )

    def train(self, until: int) -> float:
        """Train until at least ``until`` examples have been seen; returns the mean loss on the way.

        Raises:
            Diverged: a loss was not finite.
            BadInput: the recipe trains nothing.
        """
        self._running()
        losses = []
        while self.examples_seen < until:
            losses.append(self.step())
        return sum(losses) / max(len(losses), 1)

    def step(self) -> float:
        """Take one optimizer step; returns the mean loss of its examples before it.

        Raises:
            Diverged: the loss is not finite.
            BadInput: the recipe trains nothing.
        """
        running = self._running()
        self.losses.train()
        (seen, pieces), self._ahead = self._ahead, (0, [])
        if seen != self.examples_seen or not pieces:
            pieces = self._pieces()
        self.examples_seen += self.config.batch_size
        # Each rank has dropout masks of its own; rank 0 has those of a trial on one device.
        rank = () if self.ranks.first else (self.ranks.rank,)
        with seeded("dropout", self.config.seed, self.examples_seen, *rank):
            loss = running.step(pieces, self.config.lr_at(self.examples_seen))
        if self.workload.computes_ahead and self.examples_seen < self.config.max_examples:
            self._ahead = self.examples_seen, self._pieces()
        return self.check_finite(float(loss))

    def _pieces(self) -> list[Batch]:
        """Pieces of the next batch, or of this rank's share of it, as they are computed."""
        share = self.upcoming()[self.ranks.rank :: self.ranks.count]
        count = math.ceil(len(share) / self.micro_batch)
        return [self.batch("train", share[i::count]) for i in range(count)]

    def upcoming(self) -> list[int]:
        """Indices of the training questions of the next step."""
        return self.order.indices(self.examples_seen, self.examples_seen + self.config.batch_size)

    def dropout_generator(self) -> torch.Generator:
        """Random generator that the next step's dropout draws from."""
        seen = self.examples_seen + self.config.batch_size
        seed = derive_seed("dropout", self.config.seed, seen)
        return torch.Generator(self.workload.device).manual_seed(seed)

    def update(self) -> None:
        """Take an optimizer step whose gradient was already computed in a pass that trials
        share."""
        running = self._running()
        assert isinstance(running, plain_engine.Plain)
        self._ahead = 0, []
        self.examples_seen += self.config.batch_size
        running.update(self.config.lr_at(self.examples_seen))

    def check_finite(self, loss: float) -> float:
        """Note the loss of the last step, and return it if it is finite.

        Raises:
            Diverged: the loss is not finite.
        """
        self.last_loss = loss
        if not math.isfinite(loss):
            raise Diverged(f"training loss is {loss} at {self.examples_seen} examples")
        return loss

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over the whole validation split, every question of equal weight.

        Raises:
            Diverged: the loss is not finite.
        """
        self.losses.eval()
        rows = self.workload.rows["validation"]
        widest = accelerator.widest(self.workload.device)
        total = torch.zeros((), dtype=widest, device=self.workload.device)
        batches = self.evaluation_batches(
            self.workload, "validation", range(len(rows)), self.evaluation_batch
        )
        for indices, counts in self._shared(batches):
            losses = self.losses(self.batch("validation", indices))
            total += losses.to(widest).sum() * counts
        loss = float(ranks.summed(total) / len(rows))
        if not math.isfinite(loss):
            raise Diverged(f"validation loss is {loss} at {self.examples_seen} examples")
        return loss

    def answers(self, split: str, workload: Workload | None = None) -> list[str]:
        """Answer every question of ``split``, in the dataset's order: with a generated answer or,
        where the study chooses by likelihood and the question has options, with one of these.

        ``workload`` is another workload on the same model, for data that were not trained on.
        """
        workload = (workload or self.workload).asked(self.asking)
        self.losses.eval()
        found: dict[int, str] = {}
        # Generation takes as many passes as an answer has tokens, which differs between batches.
        # So where a pass needs all ranks at once, all of them take the same batch.
        together = self.engine is not None and self.engine.needs_all_ranks
        by_likelihood = self.config.regime.choose == "likelihood"
        choosing = workload.options(split) if by_likelihood else {}
        writing = [i for i in range(len(workload.rows[split])) if i not in choosing]
        size = self.evaluation_batch
        most = max(map(len, choosing.values()), default=1)
        for choose, questions, at_once in (
            (False, writing, size),
            (True, list(choosing), max(size // most, 1)),
        ):
            batches = self.evaluation_batches(workload, split, questions, at_once)
            for indices, counts in (
                ((batch, True) for batch in batches) if together else self._shared(batches)
            ):
                answers = self._answers(workload, split, indices, choose=choose)
                if counts:
                    found |= zip(indices, answers, strict=True)
        for others in ranks.all_gather(found):
            found |= others
        return [found[i] for i in range(len(found))]

    def likelihoods(self, split: str, workload: Workload | None = None) -> list[list[float] | None]:
        """Log-likelihoods of the possible answers to each question of ``split``, in the dataset's
        order (``Workload.choices``); None for a question whose possible answers are not known.

        ``workload`` is another workload on the same model, for data that were not trained on.
        """
        workload = (workload or self.workload).asked(self.asking)
        self.losses.eval()
        choices = workload.choices(split)
        most = max(map(len, choices.values()), default=1)
        together = self.engine is not None and self.engine.needs_all_ranks
        at_once = max(self.evaluation_batch // most, 1)
        batches = self.evaluation_batches(workload, split, choices, at_once)
        batch_of = partial((self if workload is self.workload else workload).batch, split)
        found: dict[int, list[float]] = {}
        for indices, counts in (
            ((batch, True) for batch in batches) if together else self._shared(batches)
        ):
            with self.losses.autocast(workload.device):
                values = likelihoods(
                    self.losses.network,
                    workload,
                    split,
                    indices,
                    choices,
                    batch_of,
                    self.evaluation_batch,
                )
            if counts:
                found |= zip(indices, values, strict=True)
        for others in ranks.all_gather(found):
            found |= others
        return [found.get(i) for i in range(len(workload.rows[split]))]

    def _answers(
        self, workload: Workload, split: str, indices: Sequence[int], *, choose: bool
    ) -> list[str]:
        """Answers to some questions of ``split``: their likeliest options, or generated ones."""
        network, own = self.losses.network, workload is self.workload
        batch_of = partial((self if own else workload).batch, split)
        with self.losses.autocast(workload.device):
            if choose:
                size = self.evaluation_batch
                return likeliest(network, workload, split, indices, batch_of, size)
            return workload.model.answers(
                network, batch_of(indices), tokens=workload.answer_tokens, beams=workload.beams
            )

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Batch of questions for the trial's network, with frozen features from the cache in place
        of the stages that compute them."""
        if self.features is None:
            return self.workload.batch(split, indices)
        return self.features.batch(split, indices, self.features_done)

    def save(self, folder: Path, report: Mapping[str, Any] | None = None) -> bool:
        """Write the trained parameters and the optimizer's state into ``folder`` by
        ``checkpoint.write``.

        ``report`` holds values that the trial reports at this point. A restored trial has them as
        its attribute ``report``, in case nobody received them.
        """
        return checkpoint.write(
            folder, self.examples_seen, self._running(), self._checkpoint_kind, report or {}
        )

    def restore(self, folder: Path) -> bool:
        """Continue from the last whole ``save`` in ``folder``; returns whether there is one.

        The result is also False if an engine that stores its state in another form wrote it. Then
        the trial begins anew, with the same losses.
        """
        running = self._running()
        last, self.broken = checkpoint.last(folder, self._checkpoint_kind, running)
        if last is None:
            return False
        self.examples_seen, self.report = checkpoint.read(last, running)
        return True

    @property
    def _checkpoint_kind(self) -> str:
        """Kind of the engine whose state is saved. DeepSpeed's state is in as many parts as there
        are workers, so it includes their number."""
        return "plain" if self.deepspeed == "off" else f"{self.deepspeed} on {self.ranks.count}"

    def _running(self) -> base.Engine:
        if self.engine is None or not self.applied.parameters:
            raise BadInput(f"recipe {self.config.recipe} trains nothing")
        return self.engine

    def evaluation_batches(
        self, workload: Workload, split: str, questions: Iterable[int], size: int
    ) -> Iterator[list[int]]:
        """Batches of ``size`` of the questions of ``split`` with these indices.

        Questions about one image are side by side, so that fewer images are encoded. Where images
        are encoded already, questions of one length are, for less padding.
        """
        rows = workload.rows[split]
        encoded = self.features_done > 0 and workload is self.workload

        def key(i: int) -> tuple[int, int, int]:
            image, length = rows[i].image, len(rows[i].question)
            return (length, image, i) if encoded else (image, length, i)

        order = sorted(questions, key=key)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _shared(self, batches: Iterable[list[int]]) -> Iterator[tuple[list[int], bool]]:
        """This rank's share of the batches, and whether each counts.

        All ranks get the same number, since a forward pass may need all of them at once. A rank
        that has fewer repeats a batch that another rank counts.
        """
        whole = list(batches)
        for start in range(0, len(whole), self.ranks.count):
            mine = start + self.ranks.rank
            yield whole[min(mine, len(whole) - 1)], mine < len(whole)
