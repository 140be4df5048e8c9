"""Which slope converts a lower loss to points: that of all arms, the arm's own, or one between?

``python -m tests.benchmarks.loss_slopes [--repetitions N]``: recorded trainings of LoRA
(``lora_targets.jsonl``) and of LayerNorm, full fine-tuning and prefixes
(``learning_curves.jsonl``) are the arms of a study. In each repetition every arm has so many of its
trainings, drawn at random. From them it is predicted by how many points each other training of the
arm that is among its lower half of losses differs from the best one that was drawn, and compared
with what was recorded. Printed is the root mean square of the error, in points, for each arm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

import numpy as np

from study.search.loss_slopes import LEAST, OWN, Pair, line, lower, pooled
from tests.benchmarks.record_curves import FILE, TARGETS_FILE

TRIALS = (8, 12, 16)


def recorded() -> dict[str, list[Pair]]:
    """Arm -> losses at the end and validation accuracies of its trainings."""
    found: dict[str, list[Pair]] = {"lora": []}
    for entry in map(json.loads, TARGETS_FILE.read_text().splitlines()):
        found["lora"].append((entry["losses"]["3200"], entry["validation_percent"]))
    for entry in map(json.loads, FILE.read_text().splitlines()):
        if entry["arm"] != "lora" and "1920" in entry["losses"]:
            pair = entry["losses"]["1920"], entry["validation_percent"]
            found.setdefault(entry["arm"], []).append(pair)
    return found


def errors(
    arms: Mapping[str, Sequence[Pair]], trials: int, chance: np.random.Generator
) -> dict[str, list[tuple[float, float, float]]]:
    """Arm -> errors in points by the slope of all arms, its own and the pooled one."""
    drawn = {
        arm: chance.permutation(len(pairs))[: min(trials, len(pairs) - 3)]
        for arm, pairs in arms.items()
    }
    seen = {arm: [pairs[i] for i in drawn[arm]] for arm, pairs in arms.items()}
    of_all = line(lower([pair for own in seen.values() for pair in own], LEAST), LEAST)
    assert of_all is not None
    found: dict[str, list[tuple[float, float, float]]] = {arm: [] for arm in arms}
    for arm, pairs in arms.items():
        own = line(lower(seen[arm]), OWN)
        slopes = of_all[0].value, (own or of_all)[0].value, pooled(of_all[0], own).value
        (loss, score), middle = min(seen[arm]), np.median([loss for loss, _ in pairs])
        for number, (other, reached) in enumerate(pairs):
            if number not in drawn[arm] and other <= middle:
                wrong = [reached - score - (loss - other) * slope for slope in slopes]
                found[arm].append((wrong[0], wrong[1], wrong[2]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=500)
    repetitions = parser.parse_args(arguments).repetitions
    arms, chance = recorded(), np.random.default_rng(0)
    print("trials  arm        of all     own  pooled")
    for trials in TRIALS:
        played = [errors(arms, trials, chance) for _ in range(repetitions)]
        for arm in arms:
            wrong = np.array([one for found in played for one in found[arm]])
            common, own, between = np.sqrt((wrong**2).mean(axis=0))
            print(f"{trials:6}  {arm:10} {common:6.1f}  {own:6.1f}  {between:6.1f}")


if __name__ == "__main__":
    main()
