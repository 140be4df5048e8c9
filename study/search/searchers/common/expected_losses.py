"""Loss of an arm's ended trials as it would have been at the end, for those that were stopped too.

A trial that was stopped at a rung counts as its last loss less what the arm's complete trials lost
from that rung to their end, their median. Without a complete trial it counts as its last loss. A
trial that diverged counts as worse than the arm's highest loss, by as much as this is above the
lowest, and by a quarter of it at least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState


def ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials of an arm that have ended, without those that run."""
    return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def losses(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Loss at the end, expected or measured, of each of an arm's ended ``trials``. Zeros where no
    loss is known of any."""
    lost = _lost(trials)
    found = [_at_end(trial, lost) for trial in trials]
    known = [loss for loss in found if math.isfinite(loss)]
    worst = max(known, default=0.0)
    # Clearly worse than the worst, or the only one that did not diverge would look like the others.
    diverged = worst + max(worst - min(known, default=0.0), abs(worst) / 4)
    return np.array([loss if math.isfinite(loss) else diverged for loss in found])


def doubts(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Standard deviation of each of ``losses``: 0 where it was measured; where it is expected, that
    of what complete trials lost from the rung to their end."""
    lost = _lost(trials)
    found = np.zeros(len(trials))
    for number, trial in enumerate(trials):
        if trial.state is not TrialState.COMPLETE and trial.intermediate_values:
            found[number] = lost.get(max(trial.intermediate_values), (0.0, 0.0))[1]
    return found


def _at_end(trial: FrozenTrial, lost: Mapping[int, tuple[float, float]]) -> float:
    if trial.state is TrialState.COMPLETE:
        return float(trial.values[0])
    if not trial.intermediate_values:
        return math.inf
    step, loss = max(trial.intermediate_values.items())
    return loss - lost.get(step, (0.0, 0.0))[0]


def _lost(trials: Sequence[FrozenTrial]) -> dict[int, tuple[float, float]]:
    """Rung -> median and standard deviation of what complete trials lost from it to their end."""
    found: dict[int, list[float]] = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.intermediate_values:
            for step, loss in trial.intermediate_values.items():
                found.setdefault(step, []).append(loss - trial.values[0])
    return {step: (float(np.median(lost)), float(np.std(lost))) for step, lost in found.items()}
