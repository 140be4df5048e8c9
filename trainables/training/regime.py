"""Settings of training and answering that all trials of a study share."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.errors import BadInput, unknown

CHOOSE = ("named", "likelihood")
"""Ways in which a trial chooses among the options of a question."""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Settings of training and answering that all trials of a study share, so that they are
    comparable. A wrong value raises ``BadInput``."""

    label_smoothing: float = 0.0
    """Share of each answer token's probability that training spreads over the vocabulary; BLIP was
    trained with 0.1. The validation loss is without label smoothing."""
    questions_per_image: int = 1
    """Number of questions about an image in a row (``trainables.training.data_order``)."""
    group_by_length: bool = False
    """Whether a batch's texts are of similar length (``trainables.training.data_order``)."""
    choose: str = CHOOSE[0]
    """How a trial answers a question with options: ``named``, by an answer that it writes, which
    may name one; ``likelihood``, by the option that is the likeliest answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(f"label_smoothing must be in [0, 1) but got {self.label_smoothing}")
        if self.questions_per_image < 1:
            raise BadInput(
                f"questions_per_image must be at least 1 but got {self.questions_per_image}"
            )
        if self.choose not in CHOOSE:
            raise unknown("choose", self.choose, CHOOSE)
        if self.questions_per_image > 1 and self.group_by_length:
            raise BadInput(
                f"questions_per_image {self.questions_per_image} and group_by_length: give one"
            )


DEFAULT_REGIME = Regime()
