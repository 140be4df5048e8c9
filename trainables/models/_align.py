"""What connects a composed model's parts is trained: a trial like any other, with one recipe.

The image encoder is frozen, question encoder and answer decoder are trained whole. Cross-attention
and the decoder's last layers are new; the rest must get used to them, and the decoder to reading
from left to right alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables import engine
from trainables.data.scores import collapsed, majority_baseline, score
from trainables.features import Features
from trainables.kept import Progress
from trainables.recipe import Recipe
from trainables.trial import Trial, TrialConfig
from trainables.workload import Workload

RECIPE = {"fusion": {"method": "full"}, "decoder": {"method": "full"}}
BATCH, WEIGHT_DECAY = 32, 0.05


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """What came of it."""

    digest: str
    """Of the dataset."""
    losses: tuple[float, ...]
    """Mean training loss of each epoch."""
    validation: dict[str, float]
    """Accuracy in percent on the validation split, by part; nothing was chosen by it."""
    majority: dict[str, float]
    """What the most frequent training answers score there."""
    collapsed: bool
    """Whether the model gives nearly one answer to all questions of a type."""

    def figures(self) -> dict[str, str]:
        """For people: what -> the accuracy there, beside that of the most frequent answers."""
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
    """Train the workload's own base model, on the training split alone. ``progress`` is told how
    many images were seen by the image encoder, which is done once.

    Raises:
        Diverged: a loss was not finite.
    """
    questions = len(workload.rows["train"])
    config = TrialConfig(
        recipe=Recipe.of(RECIPE),
        lr=lr,
        seed=seed,
        max_examples=epochs * questions,
        batch_size=BATCH,
        weight_decay=WEIGHT_DECAY,
    )
    precision = engine.resolve_precision("auto")
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
        collapsed=collapsed(dataset.validation, answers),
    )
