"""How all trials of a study train alike, whatever each one's method and learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What a comparison is under. Raises ``BadInput`` if a value cannot be."""

    label_smoothing: float = 0.0
    """Share of each answer token's probability that training spreads over the vocabulary; BLIP was
    trained with 0.1. The validation loss is without."""
    questions_per_image: int = 1
    """How many questions about an image come one after another; see ``trainables.order``."""
    group_by_length: bool = False
    """A batch's texts are of like length; see ``trainables.order``."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"label_smoothing must be in [0, 1) but got {self.label_smoothing}")
        if self.questions_per_image < 1:
            raise BadInput(
                f"questions_per_image must be at least 1 but got {self.questions_per_image}"
            )
        if self.questions_per_image > 1 and self.group_by_length:
            raise BadInput(
                f"questions_per_image {self.questions_per_image} and group_by_length: give one"
            )


USUAL = Regime()
