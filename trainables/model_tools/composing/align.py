"""Aligns the parts of a composed model by training it: a trial like any other, with one recipe.

The image encoder is frozen; question encoder and answer decoder are trained in full.
Cross-attention and the decoder's last layers are new. The other layers must get used to them, and
the decoder to reading only from left to right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.cache.arrays import Progress
from trainables.engine import start
from trainables.engine.training_settings import TrainingSettings
from trainables.measures.common.baselines import has_collapsed, majority_baseline
from trainables.measures.common.scores import score
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

RECIPE = {"fusion": {"method": "full"}, "decoder": {"method": "full"}}
BATCH, WEIGHT_DECAY = 32, 0.05


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The result of an alignment."""

    digest: str
    """Digest of the dataset."""
    losses: tuple[float, ...]
    """Mean training loss of each epoch."""
    validation: dict[str, float]
    """Accuracy in percent on the validation split, by part. It was used to choose nothing."""
    majority: dict[str, float]
    """Accuracy in percent of the most frequent training answers on the validation split, by
    part."""
    collapsed: bool
    """Whether the model gives nearly one answer to all questions of a type."""

    def figures(self) -> dict[str, str]:
        """Results as text: part -> its accuracy, beside that of the most frequent answers."""
        figures = {
            f"validation, {part}": f"{accuracy:.1f}% (majority {self.majority[part]:.1f}%)"
            for part, accuracy in self.validation.items()
            if part in ("overall", "open", "closed") and not math.isnan(accuracy)
        }
        if self.collapsed:
            figures["collapsed"] = "nearly the same answer to all questions of a type"
        return figures


def align(
    workload: Workload, *, epochs: int, lr: float, seed: int, progress: Progress | None = None
) -> Alignment:
    """Train the base model of ``workload`` itself, on the training split alone.

    ``progress`` is called with the number of images that the image encoder has encoded, which it
    does once for all epochs.

    Raises:
        Diverged: a loss was not finite.
    """
    questions = len(workload.rows["train"])
    config = TrialConfig(
        recipe=Recipe.from_plain(RECIPE),
        lr=lr,
        seed=seed,
        max_examples=epochs * questions,
        batch_size=BATCH,
        training=TrainingSettings(weight_decay=WEIGHT_DECAY),
    )
    precision = start.resolve_precision("auto")
    features = Features(workload, precision=precision, progress=progress)
    trial = Trial(workload, config, precision=precision, features=features)
    losses = []
    for epoch in range(1, epochs + 1):
        losses.append(trial.train(until=epoch * questions))
        print(f"epoch {epoch}/{epochs}  training loss {losses[-1]:.3f}", flush=True)
    answers = trial.answers("validation")
    workload.model.network.load_state_dict(trial.losses.network.state_dict())
    dataset = workload.dataset
    return Alignment(
        digest=dataset.digest,
        losses=tuple(losses),
        validation=score(dataset.validation, answers),
        majority=majority_baseline(dataset.train, dataset.validation),
        collapsed=has_collapsed(dataset.validation, answers),
    )
