"""How long the parts of a trial take."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainables import one_rank
from trainables.training import step_seconds
from trainables.training.trial import Trial
from trainables.workload import Workload


@pytest.mark.parametrize(("first", "counts"), [(0.1, False), (8 * step_seconds.LONG_SECONDS, True)])
def test_what_only_a_first_step_or_answer_takes_is_not_counted_unless_it_is_long(
    first: float, counts: bool, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by a second for each step and each batch of answers, and by more for
    the first."""
    now, begun = 0.0, set[str]()

    def takes(part: str, do: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal now
            now += 1.0 + (first if part not in begun else 0.0)
            begun.add(part)
            return do(*arguments, **options)

        return run

    trial = Trial(workload, one_rank.config(workload, "lora"), evaluation_batch=4)
    monkeypatch.setattr(trial, "step", takes("step", trial.step))
    monkeypatch.setattr(workload.model, "answers", takes("answers", workload.model.answers))
    found = step_seconds.measure(trial, lambda: now, frozen_stages=0, answers=True)
    asked = step_seconds.FEW if counts else 4
    took = 1.0 + first * counts
    assert found.training == pytest.approx(took / trial.config.batch_size)
    assert found.answer == pytest.approx(took / asked)
