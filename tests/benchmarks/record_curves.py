"""Learning curves of real trials that nothing stops, for ``early_stopping`` to replay.

``python -m tests.benchmarks.record_curves [TRIALS]``: that many trials of each arm of the embedded
model, learning rates drawn from the arm's range; validation loss at every rung that a reduction of
2, 3 or 4 would have, validation accuracy at the end. What is recorded already is kept, so it can be
stopped and started again. About 20 s a trial on one quiet core.

``python -m tests.benchmarks.record_curves --targets``: LoRA as the main study searches it, on a
grid of targets, ranks and learning rates, losses at the main study's rungs
(``lora_targets.jsonl``).

``python -m tests.benchmarks.record_curves --methods``: other methods, single slots, and a LLaVA of
random weights, each on a grid of its settings and learning rates, with the main study's budget
(``method_curves.jsonl``).

``python -m tests.benchmarks.record_curves --seeds``: LoRA of rank 8 on all its targets with several
seeds, at learning rates up to one at which some of them collapse (``seed_curves.jsonl``).
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from search_spaces.declare import Arm, Budget, Choice, LogUniform, Range, Space, method
from study.config import spaces
from study.config.budget import levels
from tests.trainables import made_llava
from trainables.measures.common.scores import score
from trainables.recipe import Recipe
from trainables.training.trial import Diverged, Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload, WorkloadConfig

FILE = Path(__file__).with_name("learning_curves.jsonl")
TRIALS_PER_ARM = 12
BUDGET = Budget(max_examples=1920)
REDUCTIONS = (2, 3, 4)
SPACE = Space(
    question="?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LogUniform(1e-4, 1e-1)),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 8, 32)), lr=LogUniform(1e-5, 3e-2)),
        "full": Arm(everywhere=method("full"), lr=LogUniform(1e-6, 1e-2)),
        "prefix": Arm(everywhere=method("prefix"), lr=LogUniform(1e-4, 3e-1)),
    },
    budget=BUDGET,
)

TARGETS_FILE = FILE.with_name("lora_targets.jsonl")
GRID = {
    "lora.targets": ("query,value", "attention", "ffn", "all"),
    "lora.rank": (8,),
    "lr": (1e-4, 1e-3, 2e-3, 4e-3, 8e-3, 2e-2),
}
"""Settings of LoRA that are recorded, in all combinations, with alpha twice the rank."""

SEEDS_FILE = FILE.with_name("seed_curves.jsonl")
SEEDS = {0.004: 2, 0.0057: 2, 0.0068: 2, 0.008: 5}
"""Learning rate -> number of seeds, from 1 on, with which LoRA is trained."""

METHODS_FILE = FILE.with_name("method_curves.jsonl")
RATES = Choice(3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
HIGH_RATES = Choice(1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
LOW_RATES = Choice(1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
LORA = method("lora", targets="all")
METHODS: dict[str, dict[str, Arm]] = {
    "tiny": {
        "adapter": Arm(everywhere=method("adapter", width=Choice(8, 64)), lr=RATES),
        "ia3": Arm(everywhere=method("ia3"), lr=HIGH_RATES),
        "bitfit": Arm(everywhere=method("bitfit"), lr=HIGH_RATES),
        "lora in decoder": Arm(decoder=method("lora", targets="all", rank=Choice(2, 32)), lr=RATES),
        "lora in vision": Arm(vision=LORA, lr=RATES),
        "full in decoder": Arm(decoder=method("full"), lr=LOW_RATES),
    },
    "llava": {
        "lora": Arm(
            everywhere=method("lora", targets=Choice("query,value", "attention", "all")), lr=RATES
        ),
        "layernorm": Arm(everywhere=method("layernorm"), lr=HIGH_RATES),
        "full": Arm(everywhere=method("full"), lr=LOW_RATES),
        "connector in full": Arm(connector=method("full"), lr=LOW_RATES),
    },
}
"""Model -> its arms, of which all points are recorded. ``llava`` is what ``made_llava`` writes: a
model of random weights, since no trained one ships."""


def stops(reduction: int) -> tuple[int, ...]:
    """Examples seen at the rungs and the end."""
    return levels(Budget(max_examples=BUDGET.max_examples, reduction=reduction, rungs=3))


def record(workload: Workload, arm: str, number: int) -> dict[str, Any]:
    """One trial to its end."""
    chance = random.Random(f"{arm} {number}")
    parameters: dict[str, Any] = {}

    def value_of(name: str, values: Range) -> Any:
        if isinstance(values, Choice):
            parameters[name] = chance.choice(values.values)
        else:
            assert isinstance(values, LogUniform)
            parameters[name] = values.low * (values.high / values.low) ** chance.random()
        return parameters[name]

    recipe, lr = spaces.draw(SPACE.arms[arm], workload.model.slots, value_of)
    config = TrialConfig(
        recipe=Recipe.from_plain(recipe), lr=lr, seed=0, max_examples=BUDGET.max_examples
    )
    every = sorted({stop for reduction in REDUCTIONS for stop in stops(reduction)})
    return {"arm": arm, "number": number, "parameters": parameters} | train(workload, config, every)


def record_targets(workload: Workload, settings: dict[str, Any]) -> dict[str, Any]:
    """One trial of LoRA with ``settings`` to its end, with the main study's budget."""
    lora = method("lora", rank=settings["lora.rank"], targets=settings["lora.targets"])
    arm = Arm(everywhere=lora, lr=settings["lr"])
    return {"parameters": settings} | record_point(workload, arm, settings)


def record_methods(model: str) -> None:
    """Record what is missing of the arms of a model of ``METHODS``."""
    done = [(line["model"], line["arm"], line["parameters"]) for line in recorded(METHODS_FILE)]
    with tempfile.TemporaryDirectory() as folder:
        source = model if model == "tiny" else str(made_llava.write(Path(folder)))
        workload = Workload.load(WorkloadConfig(model=source))
        for name, arm in METHODS[model].items():
            for parameters in grid(arm):
                if (model, name, parameters) in done:
                    continue
                line = {"model": model, "arm": name, "parameters": parameters}
                append(METHODS_FILE, line | record_point(workload, arm, parameters))


def grid(arm: Arm) -> list[dict[str, Any]]:
    """All points of an arm whose ranges are choices."""
    ranges = spaces.ranges(arm)
    values = [choice.values for choice in ranges.values() if isinstance(choice, Choice)]
    return [dict(zip(ranges, point, strict=True)) for point in product(*values)]


def record_seeds(workload: Workload) -> None:
    """Record what is missing of the trials with several seeds."""
    done = [(line["lr"], line["seed"]) for line in recorded(SEEDS_FILE)]
    for lr, count in SEEDS.items():
        arm = Arm(everywhere=method("lora", rank=8, targets="all"), lr=lr)
        for seed in range(1, count + 1):
            if (lr, seed) not in done:
                found = record_point(workload, arm, {}, seed)
                append(SEEDS_FILE, {"lr": lr, "seed": seed} | found)


def record_point(
    workload: Workload, arm: Arm, parameters: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """One trial at a point of an arm to its end, with the main study's budget."""
    budget = spaces.load("layernorm_vs_lora").budget
    recipe, lr = spaces.draw(arm, workload.model.slots, lambda name, _: parameters[name])
    config = TrialConfig(
        recipe=Recipe.from_plain(recipe),
        lr=lr,
        seed=seed,
        max_examples=budget.max_examples,
        batch_size=budget.batch_size,
    )
    return train(workload, config, levels(budget))


def train(workload: Workload, config: TrialConfig, stops: Sequence[int]) -> dict[str, Any]:
    """Losses at ``stops`` and the validation accuracy at the end of one trial."""
    trial = Trial(workload, config)
    losses: dict[int, float] = {}
    try:
        for stop in stops:
            trial.train(stop)
            losses[stop] = round(trial.validation_loss(), 5)
    except Diverged as error:
        return {"losses": losses, "diverged": str(error)}
    examples = workload.dataset.validation
    accuracy = score(examples, trial.answers("validation"))["overall"]
    return {"losses": losses, "validation_percent": round(accuracy, 2)}


def main(arguments: list[str]) -> None:
    """Record what is missing, one trial of each arm after another."""
    torch.set_num_threads(1)
    if arguments == ["--methods"]:
        for model in METHODS:
            record_methods(model)
        return
    workload = Workload.load(WorkloadConfig())
    if arguments == ["--seeds"]:
        record_seeds(workload)
        return
    if arguments == ["--targets"]:
        lines = recorded(TARGETS_FILE)
        done = [line["parameters"] for line in lines]
        for values in product(*GRID.values()):
            settings = dict(zip(GRID, values, strict=True))
            if settings not in done:
                append(TARGETS_FILE, record_targets(workload, settings))
        return
    trials = int(arguments[0]) if arguments else TRIALS_PER_ARM
    known = {(curve["arm"], curve["number"]) for curve in recorded(FILE)}
    for number in range(trials):
        for arm in SPACE.arms:
            if (arm, number) not in known:
                append(FILE, record(workload, arm, number))


def recorded(file: Path) -> list[dict[str, Any]]:
    """What is recorded in a file so far."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def append(file: Path, line: dict[str, Any]) -> None:
    """Add one trial to a file."""
    with file.open("a") as opened:
        print(json.dumps(line), file=opened, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
