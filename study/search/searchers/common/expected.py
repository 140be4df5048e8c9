"""Loss of an arm's ended trials as it would have been at the end, for those that were stopped too.

A trial that was stopped at a rung counts as its last loss less what the arm's complete trials lost
from that rung to their end, their median. Without a complete trial it counts as its last loss. A
trial that diverged counts as the arm's highest loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState


def ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those of an arm's trials that have ended; not the ones that run."""
    return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def losses(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Loss at the end, expected or measured, of each of an arm's ended ``trials``. Zeros where no
    loss is known of any."""
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    found = [_at_end(trial, complete) for trial in trials]
    known = [loss for loss in found if math.isfinite(loss)]
    worst = max(known, default=0.0)
    return np.array([loss if math.isfinite(loss) else worst for loss in found])


def _at_end(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> float:
    if trial.state is TrialState.COMPLETE:
        return float(trial.values[0])
    if not trial.intermediate_values:
        return math.inf
    step, loss = max(trial.intermediate_values.items())
    lost = [
        other.intermediate_values[step] - other.values[0]
        for other in complete
        if step in other.intermediate_values
    ]
    return loss - (float(np.median(lost)) if lost else 0.0)
