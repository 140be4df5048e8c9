"""Arms whose validation loss is known at every point of their ranges, for ``searchers``.

*Replayed*: losses between recorded learning rates are interpolated linearly on the logarithm of the
learning rate. *Fitted*: recorded curves whose best learning rate moves with a parameter that was
not recorded. *Made up*: formulas, most of them hard for a smooth model.

``../shared/facts/lr_curves.jsonl`` (83 trainings of the shipped model) is read where it is there;
``learning_curves.jsonl``, ``lora_targets.jsonl`` and ``method_curves.jsonl`` are the project's own
(``record_curves``).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Range, Uniform, method
from study.config import spaces
from study.config.budget import levels
from tests.benchmarks.record_curves import FILE as OWN
from tests.benchmarks.record_curves import METHODS, METHODS_FILE, TARGETS_FILE
from tests.benchmarks.record_curves import recorded as lines_of

_PLACES = [folder / "shared/facts/lr_curves.jsonl" for folder in Path(__file__).parents]
FACTS = next((place for place in _PLACES if place.exists()), _PLACES[3])
"""Recorded trainings that are not in the repository."""
OF_METHODS = {
    "adapter": ("tiny", "adapter"),
    "decoder's LoRA": ("tiny", "lora in decoder"),
    "LLaVA's LoRA": ("llava", "lora"),
}
"""Surface -> model and arm of ``METHODS`` that it replays."""
NO_LOSS = 3.0
"""Loss of a trial that diverged before it could report one."""
STEPS = 161
"""Steps of a continuous range in which the best of a surface is looked for."""
Curve = Callable[[Mapping[str, Any], int, int], Sequence[float]]
"""Function of a point's parameters, a noise and a repetition that gives the losses at the rungs and
the end. The noise is a number of the trial, or 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """An arm, and the loss of each of its points."""

    name: str
    kind: str
    arm: Arm
    budget: Budget
    curve: Curve

    @property
    def stops(self) -> tuple[int, ...]:
        """Examples seen at the rungs and the end."""
        return levels(self.budget)

    def final(self, parameters: Mapping[str, Any]) -> float:
        """Loss at the end, without noise."""
        return self.curve(parameters, 0, 0)[-1]

    @cache  # noqa: B019  # there are few surfaces
    def scale(self) -> tuple[float, float]:
        """Loss of the best point, and the median over the ranges less that."""
        ranges = spaces.ranges(self.arm)
        steps = STEPS if sum(not isinstance(r, Choice) for r in ranges.values()) == 1 else 41
        points = product(*(_values(values, steps) for values in ranges.values()))
        losses = sorted(self.final(dict(zip(ranges, point, strict=True))) for point in points)
        return losses[0], losses[len(losses) // 2] - losses[0]


def all_surfaces() -> list[Surface]:
    """The surfaces, those of ``FACTS`` only where it is there."""
    found = [*_of_facts()] if FACTS.exists() else []
    of_targets = _of_targets() if TARGETS_FILE.exists() else []
    return [*found, *_of_own(), *of_targets, *_of_methods(), *_made_up(_FIRST)]


def judging_surfaces() -> list[Surface]:
    """Surfaces by which nothing was chosen: neither a searcher, nor what it says may remain, nor an
    interval."""
    return _made_up(_JUDGING)


def _values(values: Range, steps: int) -> Sequence[Any]:
    if isinstance(values, Choice):
        return values.values
    if isinstance(values, LogUniform):
        return [values.low * (values.high / values.low) ** s for s in np.linspace(0, 1, steps)]
    return [float(v) for v in np.linspace(values.low, values.high, steps)]


def _between(lr: float, recorded: Mapping[float, Sequence[float]]) -> list[float]:
    """Losses at a learning rate between recorded ones."""
    rates = sorted(recorded)
    logs = np.log(rates)
    curves = np.array([recorded[rate] for rate in rates])
    return [float(np.interp(math.log(lr), logs, column)) for column in curves.T]


def _of_facts() -> list[Surface]:
    lines = [json.loads(line) for line in FACTS.read_text().splitlines()]
    budget = Budget(max_examples=3200, rungs=2, batch_size=16)
    layernorm: dict[int, dict[float, list[float]]] = {}
    lora: dict[int, dict[float, list[float]]] = {}
    for line in lines:
        curve = [loss for _, loss in line["rungs"]]
        if line["method"] == "layernorm":
            layernorm.setdefault(line["seed"], {})[line["lr"]] = curve
        elif line["seed"] == 1:
            lora.setdefault(line["rank"], {})[line["lr"]] = curve
    seeds = list(layernorm.values())
    mean = {
        rate: [float(np.mean(column)) for column in zip(*(s[rate] for s in seeds), strict=True)]
        for rate in set.intersection(*(set(s) for s in seeds))
    }

    def of_layernorm(at: Mapping[str, Any], noise: int, repetition: int) -> list[float]:
        return _between(at["lr"], seeds[repetition % len(seeds)] if noise else mean)

    def of_lora(at: Mapping[str, Any], noise: int, repetition: int) -> list[float]:
        return _between(at["lr"], lora[at["lora.rank"]])

    def whole_lora(at: Mapping[str, Any], noise: int, repetition: int) -> list[float]:
        """Ranks 4 and 16 are half-way between those recorded; a larger alpha asks for a lower
        learning rate, by its square root (the product of two factors is scaled)."""
        rank = at["lora.rank"]
        lr = at["lr"] * math.sqrt(at["lora.alpha_per_rank"])
        around = {4: (2, 8), 16: (8, 32)}.get(rank, (rank, rank))
        low, high = (_between(lr, lora[near]) for near in around)
        luck = random.Random(f"{noise} {repetition}").gauss(0, 0.005) if noise else 0.0
        return [(a + b) / 2 + luck for a, b in zip(low, high, strict=True)]

    span = LogUniform(min(mean), max(mean))
    rates = LogUniform(min(min(r) for r in lora.values()), max(max(r) for r in lora.values()))
    ranks = Choice(*sorted(lora))
    settings = {"rank": Choice(2, 4, 8, 16, 32), "alpha_per_rank": Choice(1.0, 2.0, 4.0)}
    return [
        Surface(
            name="LayerNorm",
            kind="replayed",
            arm=_plain(span),
            budget=budget,
            curve=of_layernorm,
        ),
        Surface(
            name="LoRA",
            kind="replayed",
            budget=budget,
            arm=Arm(everywhere=method("lora", rank=ranks), lr=rates),
            curve=of_lora,
        ),
        Surface(
            name="LoRA, 3 settings",
            kind="fitted",
            budget=budget,
            arm=Arm(everywhere=method("lora", **settings), lr=rates),
            curve=whole_lora,
        ),
    ]


def _of_own() -> list[Surface]:
    lines = [json.loads(line) for line in OWN.read_text().splitlines()]
    budget = Budget(max_examples=1920, rungs=3)
    stops = levels(budget)
    found = []
    for name in ("full", "prefix"):
        recorded = {}
        for line in lines:
            if line["arm"] == name:
                losses = [line["losses"].get(str(stop), NO_LOSS) for stop in stops]
                recorded[line["parameters"]["lr"]] = losses

        def curve(
            at: Mapping[str, Any],
            noise: int,
            repetition: int,
            recorded: Mapping[float, Sequence[float]] = recorded,
        ) -> list[float]:
            return _between(at["lr"], recorded)

        found.append(
            Surface(
                name=f"{name}, 12 rates",
                kind="replayed",
                arm=_plain(LogUniform(min(recorded), max(recorded))),
                budget=budget,
                curve=curve,
            )
        )
    return found


def _of_targets() -> list[Surface]:
    """LoRA as the main study searches it: targets, rank, alpha and learning rate."""
    main_study = spaces.load("layernorm_vs_lora")
    stops = levels(main_study.budget)
    recorded: dict[str, dict[float, list[float]]] = {}
    for line in map(json.loads, TARGETS_FILE.read_text().splitlines()):
        at = line["parameters"]
        losses = [line["losses"].get(str(stop), NO_LOSS) for stop in stops]
        recorded.setdefault(at["lora.targets"], {})[at["lr"]] = losses
    rates = sorted(next(iter(recorded.values())))

    def curve(at: Mapping[str, Any], noise: int, repetition: int) -> list[float]:
        """Rank 8 is recorded; each factor of two away from it costs 0.004. A larger alpha asks for
        a lower learning rate, by its square root (the product of two factors is scaled)."""
        lr = at["lr"] * math.sqrt(at["lora.alpha_per_rank"] / 2)
        away = 0.004 * abs(math.log2(at["lora.rank"] / 8))
        luck = random.Random(f"{noise} {repetition}").gauss(0, 0.005) if noise else 0.0
        return [loss + away + luck for loss in _between(lr, recorded[at["lora.targets"]])]

    everywhere = main_study.arms["lora"].slots["everywhere"]
    return [
        Surface(
            name="LoRA, 4 settings",
            kind="fitted",
            arm=Arm(everywhere=everywhere, lr=LogUniform(rates[0], rates[-1])),
            budget=main_study.budget,
            curve=curve,
        )
    ]


def _of_methods() -> list[Surface]:
    """Arms of ``METHODS``, each of which has a choice beside its learning rate."""
    budget = spaces.load("layernorm_vs_lora").budget
    found = []
    for name, (model, arm_name) in OF_METHODS.items():
        arm = METHODS[model][arm_name]
        (choice,) = spaces.ranges(arm).keys() - {"lr"}
        curves: dict[Any, dict[float, list[float]]] = {}
        for line in lines_of(METHODS_FILE):
            if (line["model"], line["arm"]) == (model, arm_name):
                at = line["parameters"]
                losses = [line["losses"].get(str(stop), NO_LOSS) for stop in levels(budget)]
                curves.setdefault(at[choice], {})[at["lr"]] = losses

        def curve(
            at: Mapping[str, Any],
            noise: int,
            repetition: int,
            choice: str = choice,
            curves: Mapping[Any, Mapping[float, Sequence[float]]] = curves,
        ) -> list[float]:
            return _between(at["lr"], curves[at[choice]])

        rates = sorted(next(iter(curves.values())))
        found.append(
            Surface(
                name=name,
                kind="replayed",
                arm=Arm(lr=LogUniform(rates[0], rates[-1]), training=None, **arm.slots),
                budget=budget,
                curve=curve,
            )
        )
    return found


def _plain(rates: LogUniform) -> Arm:
    return Arm(everywhere=method("layernorm"), lr=rates)


Formula = Callable[[Mapping[str, Any]], tuple[float, float]]
"""Function of a point that gives its final loss, and how slow it is: what is above the final loss
at the first rung, of three."""
_RATES = LogUniform(1e-5, 1e-1)
_DEEP = Arm(
    everywhere=method(
        "lora",
        rank=Choice(2, 8, 32),
        rank_stabilized=Choice(False, True),
        dropout=Uniform(0.0, 0.2),
    ),
    lr=_RATES,
)


def _made_up(formulas: Mapping[str, tuple[Arm, Formula, float]]) -> list[Surface]:
    return [
        Surface(
            name=name,
            kind="made up",
            arm=arm,
            budget=Budget(max_examples=3200, rungs=2, batch_size=16),
            curve=_curve(formula, noise_sd),
        )
        for name, (arm, formula, noise_sd) in formulas.items()
    ]


def _curve(formula: Formula, noise_sd: float) -> Curve:
    """Curves that fall to a final loss by a power of the examples seen; ``noise_sd`` is the
    standard deviation of a trial's luck."""
    above = (1.0, 0.45, 0.0)

    def curve(at: Mapping[str, Any], noise: int, repetition: int) -> list[float]:
        final, slow = formula(at)
        chance = random.Random(f"{noise} {repetition}")
        luck = chance.gauss(0, noise_sd) if noise else 0.0
        return [final + slow * share + luck for share in above]

    return curve


def _cliff(at: Mapping[str, Any]) -> tuple[float, float]:
    """Loss falls up to the best learning rate; a fifth of a decade above it, training diverges."""
    x = math.log10(at["lr"])
    final = 0.7 + 0.12 * (x + 2.4) ** 2 if x < -2.2 else 1.6
    return final, 0.1 * max(0.0, -2.0 - x)


def _two_valleys(at: Mapping[str, Any]) -> tuple[float, float]:
    """A wide valley, and a narrow one that is deeper."""
    x = math.log10(at["lr"])
    wide = 0.3 * math.exp(-(((x + 4.0) / 0.7) ** 2))
    narrow = 0.4 * math.exp(-(((x + 1.9) / 0.2) ** 2))
    return 1.1 - wide - narrow, 0.2


def _slow_starters(at: Mapping[str, Any]) -> tuple[float, float]:
    """A learning rate that ends lowest starts slowest, so early losses mislead."""
    x = math.log10(at["lr"])
    return 0.7 + 0.1 * (x + 3.5) ** 2, 0.15 * (-1.0 - x) ** 1.2


def _steps(at: Mapping[str, Any]) -> tuple[float, float]:
    """A valley on whose ground each tenth of a decade is a step up or down by chance."""
    x = math.log10(at["lr"])
    jump = random.Random(math.floor(10 * x)).uniform(-0.06, 0.06)
    return 0.8 + 0.08 * (x + 2.7) ** 2 + jump, 0.2


def _four_settings(at: Mapping[str, Any]) -> tuple[float, float]:
    """The best learning rate depends on the rank and on a yes or no; some dropout is good."""
    x, rank = math.log10(at["lr"]), math.log2(at["lora.rank"])
    best = -2.4 - 0.15 * rank - (0.8 if at["lora.rank_stabilized"] else 0.0)
    final = 0.75 + 0.15 * (x - best) ** 2 + 0.01 * (rank - 3) ** 2
    final += 8 * (at["lora.dropout"] - 0.06) ** 2 - (0.03 if at["lora.rank_stabilized"] else 0.0)
    return min(final, 2.0), 0.1 * max(0.0, -1.5 - x)


def _kink(at: Mapping[str, Any]) -> tuple[float, float]:
    """Loss falls along a straight line, and rises four times as steeply."""
    x = math.log10(at["lr"])
    return 0.7 + (0.1 * (-2.6 - x) if x < -2.6 else 0.4 * (x + 2.6)), 0.2


def _funnel(at: Mapping[str, Any]) -> tuple[float, float]:
    """A plain without slope around a basin of one decade, a quarter of the range."""
    x = math.log10(at["lr"])
    return 1.1 - 0.35 * math.exp(-(((x + 3.3) / 0.4) ** 4)), 0.2


def _noisy(at: Mapping[str, Any]) -> tuple[float, float]:
    """A smooth valley, of which each trial's own luck hides the ground."""
    return 0.75 + 0.08 * (math.log10(at["lr"]) + 2.9) ** 2, 0.2


def _twins(at: Mapping[str, Any]) -> tuple[float, float]:
    """Two valleys of one width, of which one is deeper by a hundredth."""
    x = math.log10(at["lr"])
    near = 0.30 * math.exp(-(((x + 3.9) / 0.45) ** 2))
    far = 0.31 * math.exp(-(((x + 2.1) / 0.45) ** 2))
    return 1.0 - near - far, 0.2


def _crossed(at: Mapping[str, Any]) -> tuple[float, float]:
    """Rank and stabilisation each move the best learning rate; one combination of the six is the
    best by four hundredths."""
    x, rank = math.log10(at["lr"]), {2: 0, 8: 1, 32: 2}[at["lora.rank"]]
    stable = at["lora.rank_stabilized"]
    best = -2.0 - 0.6 * rank + (0.5 if stable else -0.3)
    above = (0.05, 0.04, 0.06, 0.07, 0.0, 0.04)[2 * rank + stable]
    return min(0.72 + above + 0.2 * (x - best) ** 2 + at["lora.dropout"] * 0.1, 2.0), 0.2


def _crevice(at: Mapping[str, Any]) -> tuple[float, float]:
    """A wide valley, in whose side a crevice of a twentieth of the range goes deeper."""
    x = math.log10(at["lr"])
    return 0.8 + 0.06 * (x + 3.4) ** 2 - 0.15 * math.exp(-(((x + 2.3) / 0.1) ** 2)), 0.2


_LUCK = 0.005
_FIRST: dict[str, tuple[Arm, Formula, float]] = {
    "cliff": (_plain(_RATES), _cliff, _LUCK),
    "two valleys": (_plain(_RATES), _two_valleys, _LUCK),
    "slow starters": (_plain(_RATES), _slow_starters, _LUCK),
    "steps": (_plain(_RATES), _steps, _LUCK),
    "4 settings": (_DEEP, _four_settings, _LUCK),
}
_JUDGING: dict[str, tuple[Arm, Formula, float]] = {
    "kink": (_plain(_RATES), _kink, _LUCK),
    "funnel": (_plain(_RATES), _funnel, _LUCK),
    "noisy": (_plain(_RATES), _noisy, 0.02),
    "twins": (_plain(_RATES), _twins, _LUCK),
    "crossed": (_DEEP, _crossed, _LUCK),
    "crevice": (_plain(_RATES), _crevice, _LUCK),
}
"""See ``judging_surfaces``."""
