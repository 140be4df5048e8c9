"""How far each arm's best trial is expected to be from the best that the arm can do.

The arm's Gaussian process (``searchers/gp.py``) is drawn many times as a whole surface. In each
draw, what remains is the surface at the arm's best trial less the surface's minimum. The mean of
that is what the arm is expected to gain by a search without end; its 10th and 90th percentiles say
how sure that is.

Losses become points by a line through the complete trials of all arms, validation accuracy over
validation loss, those of the lower half of losses where there are enough: the accuracy that a loss
brings is not the same at high losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from study.search.journal import StudyJournal
from study.search.searchers import gp
from study.search.searchers.common import expected_losses
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind

LEAST = 6
"""Ended trials of an arm from which on something is said of it, and complete trials from which on
losses become points: a line through fewer says little."""
DRAWS = 16
"""Surfaces drawn for each of the process's settings."""
SCORE = "validation.overall"


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What an arm may still gain, in loss or in points."""

    mean: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""

    def times(self, factor: float) -> Remaining:
        """The same in another unit."""
        return Remaining(mean=self.mean * factor, low=self.low * factor, high=self.high * factor)


NOTHING = Remaining(mean=0.0, low=0.0, high=0.0)


def in_loss(
    trials: Sequence[FrozenTrial], ranges: Mapping[str, BaseDistribution], seed: int
) -> Remaining | None:
    """What an arm may still gain in validation loss, by its ``trials``. None if too few have ended,
    or none is complete. The same trials and seed give the same."""
    ended = expected_losses.ended(trials)
    if not ranges:
        return NOTHING
    if len(ended) < LEAST or not any(t.state is TrialState.COMPLETE for t in ended):
        return None
    model = gp.model(ended, ranges, np.random.default_rng([seed, len(ended)]))
    best = int(
        np.argmin(
            np.where([t.state is TrialState.COMPLETE for t in model.seen], model.losses, np.inf)
        )
    )
    surfaces = model.process.surfaces(
        np.concatenate([model.rows[[best]], model.candidates]), DRAWS, model.chance
    )
    gains = (surfaces[:, 0] - surfaces.min(axis=1)) * model.deviation
    low, high = np.quantile(gains, (0.1, 0.9))
    return Remaining(mean=float(gains.mean()), low=float(low), high=float(high))


def points_per_loss(records: Iterable[TrialRecord]) -> float | None:
    """Points of validation accuracy that a validation loss lower by 1 brings. None if too few
    trials of the search are complete."""
    pairs = sorted(
        (record.loss, record.scores[SCORE])
        for record in records
        if record.spec.kind is Kind.SEARCH
        and record.outcome is Outcome.COMPLETE
        and SCORE in record.scores
    )
    if len(pairs) >= 2 * LEAST:
        pairs = pairs[: len(pairs) // 2]
    losses, scores = np.array(pairs).reshape(-1, 2).T
    if len(pairs) < LEAST or losses.std() < 1e-9:
        return None
    slope = float(np.polyfit(losses, scores, 1)[0])
    return max(-slope, 0.0)


class ArmGains:
    """What each arm of a study may still gain. It depends on the seed and on the journal alone."""

    def __init__(
        self,
        journal: StudyJournal,
        groups: Mapping[str, Mapping[str, BaseDistribution]],
        seed: int,
    ) -> None:
        """Read what ``journal`` knows, now and later. ``groups``: arm -> its parameters."""
        self.journal, self.groups, self.seed = journal, groups, seed
        self._known: dict[str, tuple[tuple[int, ...], Remaining | None]] = {}
        """Arm -> numbers of its ended trials, and what followed from them."""

    def loss(self, arm: str) -> Remaining | None:
        """What an arm may still gain in validation loss; None if too little is known of it."""
        trials = [t for t in self.journal.memory.trials() if t.params["arm"] == arm]
        numbers = tuple(trial.number for trial in trials)
        if self._known.get(arm, ((), None))[0] != numbers or not numbers:
            ranges = {n: d for n, d in sorted(self.groups[arm].items()) if not d.single()}
            self._known[arm] = numbers, in_loss(trials, ranges, self.seed)
        return self._known[arm][1]

    def neediest(self, arms: Sequence[str]) -> str:
        """The one of ``arms`` that may gain most. One of which too little is known comes first,
        until it has had its chance."""

        def need(arm: str) -> tuple[bool, float]:
            tried, gain = self.journal.tried[arm], self.loss(arm)
            if gain is None:
                return tried < 2 * LEAST, -float(tried)
            return False, gain.mean

        return max(arms, key=need)

    def tuned(self, arms: Iterable[str], to: float) -> bool:
        """Whether all of ``arms`` are expected to gain no more than ``to`` points."""
        factor = points_per_loss(self.journal.records.values())
        gains = [self.loss(arm) for arm in arms]
        return factor is not None and all(
            gain is not None and gain.mean * factor <= to for gain in gains
        )

    def texts(self) -> dict[str, str]:
        """Arm -> what it may still gain, in words; without arms of which too little is known."""
        factor = points_per_loss(self.journal.records.values())
        unit, digits = ("points", 1) if factor else ("of validation loss", 3)
        found = {}
        for arm in self.groups:
            gain = self.loss(arm)
            if gain is not None:
                gain = gain.times(factor or 1.0)
                low, high = f"{gain.low:.{digits}f}", f"{gain.high:.{digits}f}"
                found[arm] = f"may still gain {gain.mean:.{digits}f} {unit} ({low} to {high})"
        return found
