"""Label smoothing, and questions that come by image or by length."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainables.training.trials import config, losses
from trainables.errors import BadInput
from trainables.training.regime import Regime
from trainables.training.trial import Trial
from trainables.workload import Workload


def test_label_smoothing_is_trained_with_and_not_validated_with(workload: Workload) -> None:
    plain, smooth = (
        Trial(workload, config(workload, regime=Regime(label_smoothing=share)))
        for share in (0.0, 0.1)
    )
    assert plain.validation_loss() == smooth.validation_loss()
    assert losses(plain, 1) != losses(smooth, 1)
    assert plain.validation_loss() != smooth.validation_loss()


def test_grouped_questions_need_fewer_images_and_come_in_the_order_of_their_own(
    workload: Workload,
) -> None:
    plain, grouped = (
        Trial(workload, config(workload, regime=Regime(questions_per_image=together)))
        for together in (1, 4)
    )
    images = [len(trial.batch("train", trial.upcoming()).pixels_UCSS) for trial in (plain, grouped)]
    assert images[1] < images[0]
    assert losses(plain, 1) != losses(grouped, 1)


def test_batches_by_length_have_less_padding(workload: Workload) -> None:
    padding = []
    for by in (False, True):
        trial, padded = Trial(workload, config(workload, regime=Regime(group_by_length=by))), 0
        for _ in range(16):
            batch = trial.batch("train", trial.upcoming())
            for mask in (batch.question_mask_BQ, batch.answer_mask_BA):
                padded += int((mask == 0).sum())
            trial.examples_seen += trial.config.batch_size
        padding.append(padded)
    assert padding[1] < 0.7 * padding[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("questions_per_image", 0)],
)
def test_a_regime_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{name} must .* but got {value}"):
        Regime(**{name: value})


def test_questions_come_by_image_or_by_length() -> None:
    with pytest.raises(BadInput, match="questions_per_image 2 and group_by_length: give one"):
        Regime(questions_per_image=2, group_by_length=True)
