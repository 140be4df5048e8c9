"""Computes which settings matter: the importance of method, learning rate, rank and others.

The measure is PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), in Optuna's implementation. For
one setting at a time, it measures how much the values of the best trials differ from those of all
trials. The loss is that of the first rung, which every trial reaches, so that trials that were
stopped early count as much as others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from search_spaces.declare import Range
from study.analysis.efficiency_types import Importance
from study.config.spaces import distribution, to_optuna
from study.trials.record import TrialRecord

BEST, FEWEST_BEST = 0.1, 5
"""The best tenth of trials is compared with all trials; at least five trials, as Optuna advises."""
FEWEST = 10
"""Trials for each setting, below which an importance comes with a warning."""
ALL = "all arms"
"""Name of the entry about all arms together."""


def importances(
    searched: Mapping[str, Sequence[TrialRecord]], ranges: Mapping[str, Mapping[str, Range]]
) -> tuple[Importance, ...]:
    """The importance of settings among all arms, and within each arm that has several settings.

    Args:
        searched: arm -> its search trials.
        ranges: arm -> name of a setting -> the range that is searched.

    Returns:
        One entry for all arms together and one for each arm; none for an importance that cannot be
        computed.
    """
    reached = {arm: [r for r in records if r.rungs] for arm, records in searched.items()}
    by_arm = {
        arm: {name: distribution(values) for name, values in ranges[arm].items()}
        for arm in searched
    }
    found = []
    if len(searched) > 1:
        together = _together(by_arm)
        shared = {
            arm: {name: together[name] for name in space if name in together}
            for arm, space in by_arm.items()
        }
        points = [
            (r, {"method": arm} | dict(r.spec.parameters), shared[arm])
            for arm, records in reached.items()
            for r in records
        ]
        method = {"method": CategoricalDistribution(list(searched))}
        found.append(_entry(ALL, [(r, p, method | d) for r, p, d in points]))
    for arm, records in reached.items():
        if len(by_arm[arm]) > 1:
            found.append(_entry(arm, [(r, r.spec.parameters, by_arm[arm]) for r in records]))
    return tuple(entry for entry in found if entry is not None)


def _entry(
    of: str, points: Sequence[tuple[TrialRecord, Mapping[str, Any], Mapping[str, BaseDistribution]]]
) -> Importance | None:
    """The entry for one arm, or for all; None if the importance cannot be computed."""
    settings = {name for _, _, space in points for name in space}
    if len(points) <= FEWEST_BEST or len(settings) < 2:
        return None
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: to_optuna(parameters[name]) for name in space},
                distributions=dict(space),
                value=record.rungs[0].validation_loss,
            )
            for record, parameters, space in points
        ]
    )
    share = max(BEST, FEWEST_BEST / len(points))
    with warnings.catch_warnings():
        # Optuna calls the interface "experimental"; here its version is pinned.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna warns where so many trials are equally good that all are among the best.
        warnings.simplefilter("error", UserWarning)
        try:
            evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
            shares = get_param_importances(study, evaluator=evaluator)
        except UserWarning:
            return None
    if not all(math.isfinite(value) for value in shares.values()):
        return None
    needed = FEWEST * len(settings)
    few = f"{len(points)} trials for {len(settings)} settings: {needed} would carry it"
    return Importance(
        of=of,
        shares=dict(sorted(shares.items(), key=lambda item: -item[1])),
        trials=len(points),
        warning=few if len(points) < needed else "",
    )


def _together(
    ranges: Mapping[str, Mapping[str, BaseDistribution]],
) -> dict[str, BaseDistribution]:
    """One distribution for each setting, as wide as those of all arms that have it. A setting that
    is a choice in one arm and a range in another is left out."""
    found: dict[str, BaseDistribution] = {}
    mixed = set()
    for space in ranges.values():
        for name, new in space.items():
            old = found.get(name, new)
            if isinstance(old, FloatDistribution) and isinstance(new, FloatDistribution):
                low, high = min(old.low, new.low), max(old.high, new.high)
                found[name] = FloatDistribution(low, high, log=old.log and new.log)
            elif isinstance(old, CategoricalDistribution) and isinstance(
                new, CategoricalDistribution
            ):
                found[name] = CategoricalDistribution(
                    list(dict.fromkeys(old.choices + new.choices))
                )
            else:
                mixed.add(name)
    return {name: values for name, values in found.items() if name not in mixed}
