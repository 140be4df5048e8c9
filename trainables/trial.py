"""One trial: train a recipe on a workload up to a budget, look at its validation loss, answer.

The clock is ``examples_seen``. Data order, schedule, dropout and initial values depend on the
trial's configuration and this clock alone, so a trial that is stopped and restored goes on as if
nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables import engine, ranks, recipe, saved
from trainables.checkpointing import checkpoint_layers
from trainables.errors import BadInput
from trainables.features import Features
from trainables.fork import fork
from trainables.models.contract import Batch
from trainables.order import Order
from trainables.recipe import Recipe
from trainables.regime import USUAL, Regime
from trainables.seeds import number, seeded
from trainables.workload import Workload
from trainables.zero_settings import divides

EVALUATION_BATCH = 128


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """A point of the space, with one seed."""

    recipe: Recipe
    lr: float
    """Peak learning rate of AdamW."""
    seed: int
    """Decides data order, dropout and the initial values of adapters."""
    max_examples: int
    """Length of the schedule in training examples, repeated ones counted."""
    batch_size: int = 32
    weight_decay: float = 0.01
    """For matrices only."""
    warmup: float = 0.05
    """Share of the schedule in which the learning rate rises; then it falls along a cosine to 0."""
    regime: Regime = USUAL
    """That of the study."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"lr must be positive but got {self.lr}")
        for name in ("max_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1 but got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadInput(f"weight_decay must not be negative but got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise BadInput(f"warmup must be in [0, 1) but got {self.warmup}")

    def lr_at(self, examples_seen: int) -> float:
        """The learning rate of the step after which ``examples_seen`` examples have been seen: that
        of the schedule in the middle of the step, so none is wasted on 0, however few there are."""
        steps = math.ceil(self.max_examples / self.batch_size)
        progress = min((examples_seen / self.batch_size - 0.5) / steps, 1.0)
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        falling = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * falling))


class Trial:
    """A running trial. It owns what it trains; the rest is the workload's."""

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
        checkpointing: bool = False,
    ) -> None:
        """``features``: of this workload in this precision, shared by its trials. ``deepspeed``:
        see ``engine.start``. Where a whole batch would take too much memory, ``micro_batch`` is how
        many questions are computed at once at most, and ``checkpointing`` keeps less of each layer
        (``trainables.checkpointing``); ``evaluation_batch`` is how many are at once where nothing
        is learnt from them. None of these changes a loss, but for dropout: its masks are drawn for
        each piece of a batch.

        Raises:
            BadInput: the ranks of a gang cannot share a batch evenly.
        """
        self.workload, self.config, self.features = workload, config, features
        self.ranks = ranks.here()
        self.micro_batch = micro_batch or config.batch_size
        self.checkpointing = checkpointing
        self.evaluation_batch = evaluation_batch or EVALUATION_BATCH
        self.deepspeed = deepspeed
        if config.batch_size % self.ranks.count:
            raise BadInput(
                f"batch_size {config.batch_size} is not a multiple of {self.ranks.count} workers"
            )
        self.order = Order(
            workload.rows["train"],
            seed=config.seed,
            batch_size=config.batch_size,
            questions_per_image=config.regime.questions_per_image,
            by_length=config.regime.group_by_length,
        )
        self.examples_seen = 0
        self._ahead: tuple[int, list[Batch]] = 0, []
        """Examples seen, and the pieces of the step that comes then; see ``computes_ahead``."""
        self.report: dict[str, Any] = {}
        """What was said at the point that was restored."""
        self.broken: list[int] = []
        """Points later than that, in examples seen, whose checkpoints were not whole."""
        network = fork(workload.model.network)
        self.applied = recipe.apply(config.recipe, workload.model, network, seed=config.seed)
        if checkpointing:
            checkpoint_layers(network)
        if not workload.resident and not divides(deepspeed):
            network.to(workload.device)
        self.frozen_stages = features.frozen_stages(config.recipe) if features else 0
        """How many of the model's first stages it leaves as they are."""
        self.features_done = features.usable(self.frozen_stages) if features else 0
        """How many of them are not computed again."""
        self.losses = engine.Losses(
            workload.model, network, precision, smoothing=config.regime.label_smoothing
        )
        self.engine = (
            engine.start(deepspeed, self.losses, self.applied, config.weight_decay)
            if self.applied.parameters or divides(deepspeed)
            else None
        )

    def train(self, until: int) -> float:
        """Train until at least ``until`` examples have been seen; the mean loss on the way.

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
        """One optimizer step; the mean loss of its examples before it.

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
        # Each rank has masks of its own; the first has those of a trial that is alone.
        place = () if self.ranks.first else (self.ranks.rank,)
        with seeded("dropout", self.config.seed, self.examples_seen, *place):
            loss = running.step(pieces, self.config.lr_at(self.examples_seen))
        if self.workload.computes_ahead and self.examples_seen < self.config.max_examples:
            self._ahead = self.examples_seen, self._pieces()
        return self.finite(float(loss))

    def _pieces(self) -> list[Batch]:
        """Its next batch, or this rank's share, as it is computed."""
        share = self.upcoming()[self.ranks.rank :: self.ranks.count]
        count = math.ceil(len(share) / self.micro_batch)
        return [self.batch("train", share[i::count]) for i in range(count)]

    def upcoming(self) -> list[int]:
        """The training questions of its next step."""
        return self.order.between(self.examples_seen, self.examples_seen + self.config.batch_size)

    def chance(self) -> torch.Generator:
        """What its next step's dropout draws from."""
        seen = self.examples_seen + self.config.batch_size
        seed = number("dropout", self.config.seed, seen)
        return torch.Generator(self.workload.device).manual_seed(seed)

    def update(self) -> None:
        """A step whose gradient is there already, from a pass that trials share."""
        running = self._running()
        assert isinstance(running, engine.Plain)
        self._ahead = 0, []
        self.examples_seen += self.config.batch_size
        running.update(self.config.lr_at(self.examples_seen))

    def finite(self, loss: float) -> float:
        """The loss of its last step.

        Raises:
            Diverged: it is not finite.
        """
        if not math.isfinite(loss):
            raise Diverged(f"training loss is {loss} at {self.examples_seen} examples")
        return loss

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over the whole validation split, every question of equal weight.

        Raises:
            Diverged: it is not finite.
        """
        self.losses.eval()
        rows = self.workload.rows["validation"]
        total = torch.zeros((), dtype=torch.float64, device=self.workload.device)
        for indices, counts in self._shared(self._batches(self.workload, "validation")):
            losses = self.losses(self.batch("validation", indices))
            total += losses.double().sum() * counts
        loss = float(ranks.total(total) / len(rows))
        if not math.isfinite(loss):
            raise Diverged(f"validation loss is {loss} at {self.examples_seen} examples")
        return loss

    def answers(self, split: str, workload: Workload | None = None) -> list[str]:
        """A generated answer to every question of ``split``, in the dataset's order.

        ``workload`` is another one on the same model, for data that were not trained on.
        """
        workload = workload or self.workload
        self.losses.eval()
        model, network = workload.model, self.losses.network
        found: dict[int, str] = {}
        # Generating takes as many passes as an answer has tokens, so no two ranks' batches agree.
        together = self.engine is not None and self.engine.together
        batches = self._batches(workload, split)
        for indices, counts in ((b, True) for b in batches) if together else self._shared(batches):
            own = workload is self.workload
            batch = self.batch(split, indices) if own else workload.batch(split, indices)
            with self.losses.autocast(workload.device):
                answers = model.answers(
                    network, batch, tokens=workload.answer_tokens, beams=workload.beams
                )
            if counts:
                found |= zip(indices, answers, strict=True)
        for others in ranks.gathered(found):
            found |= others
        return [found[i] for i in range(len(found))]

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Questions as its network takes them: without what need not be computed again."""
        if self.features is None:
            return self.workload.batch(split, indices)
        return self.features.batch(split, indices, self.features_done)

    def save(self, folder: Path, report: Mapping[str, Any] | None = None) -> bool:
        """Write what is trained and the optimizer's state into ``folder``; see ``saved.write``.

        ``report`` is what is said of this point; a restored trial has it as ``report`` again, for
        whoever did not hear it.
        """
        return saved.write(folder, self.examples_seen, self._running(), self._engine, report or {})

    def restore(self, folder: Path) -> bool:
        """Go on from the last whole ``save`` in ``folder``; False if there is none, or one of an
        engine that keeps its state otherwise: then the trial begins anew, with the same losses."""
        running = self._running()
        last, self.broken = saved.last(folder, self._engine, running)
        if last is None:
            return False
        self.examples_seen, self.report = saved.read(last, running)
        return True

    @property
    def _engine(self) -> str:
        """Whose state is saved: DeepSpeed's is in as many parts as there are workers."""
        return "plain" if self.deepspeed == "off" else f"{self.deepspeed} on {self.ranks.count}"

    def _running(self) -> engine.Engine:
        if self.engine is None or not self.applied.parameters:
            raise BadInput(f"recipe {self.config.recipe} trains nothing")
        return self.engine

    def _batches(self, workload: Workload, split: str) -> Iterator[list[int]]:
        """The questions of ``split``. Those about one image are side by side: fewer images to
        encode. Where that is done already, those of a length are: less padding."""
        rows, size = workload.rows[split], self.evaluation_batch
        encoded = self.features_done > 0 and workload is self.workload

        def key(i: int) -> tuple[int, int, int]:
            image, length = rows[i].image, len(rows[i].question)
            return (length, image, i) if encoded else (image, length, i)

        order = sorted(range(len(rows)), key=key)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _shared(self, batches: Iterable[list[int]]) -> Iterator[tuple[list[int], bool]]:
        """This rank's share, and whether it counts. All ranks get as many, since a forward pass may
        need all of them at once; those who have less repeat what others count."""
        whole = list(batches)
        for start in range(0, len(whole), self.ranks.count):
            mine = start + self.ranks.rank
            yield whole[min(mine, len(whole) - 1)], mine < len(whole)
