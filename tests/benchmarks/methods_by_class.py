"""Prints which methods can be done in which slots of which classes of models, and why not.

    python -m tests.benchmarks.methods_by_class

On a small random model of each class, and of the families that are of the same make, every method
is put into every slot alone. A cell has a letter for each slot, in the order in which the table's
corner names them: d, done, and in a pass that trials share; a, done, but the trial takes its steps
alone; r, refused. Numbers name reasons that follow the tables.
"""

from __future__ import annotations

import re
import warnings

from tests.trainables.conftest import OF_CLASSES, SMALL, made_up
from trainables import registry
from trainables.errors import BadInput
from trainables.model_lookup import GENERIC
from trainables.packing.network_diff import Unpackable
from trainables.packing.pack import Pack
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

METHODS = [name for name in registry.METHODS.names() if name != "frozen"]
FAMILIES = ["llava", *OF_CLASSES, "blip_2", "instructblip"]


def main() -> None:
    """Print a table for each set of slots, in Markdown."""
    warnings.simplefilter("ignore")
    reasons: dict[str, int] = {}
    rows: dict[tuple[str, ...], list[str]] = {}
    for family in FAMILIES:
        workload = made_up(SMALL[family]())
        slots = tuple(workload.model.slots)
        pack = Pack(workload, Features(workload, precision="fp32"))
        cells = (
            " ".join(cell(workload, pack, method, slot, reasons) for slot in slots)
            for method in METHODS
        )
        row = f"| {family.removeprefix(f'{GENERIC}/')} | {' | '.join(cells)} |"
        rows.setdefault(slots, []).append(row)
    for slots, of_slots in rows.items():
        print(f"| {', '.join(slots)} | {' | '.join(METHODS)} |")
        print(f"|---|{'---|' * len(METHODS)}")
        print("\n".join(of_slots), end="\n\n")
    for reason, number in reasons.items():
        print(f"{number}. {reason}")


def cell(workload: Workload, pack: Pack, method: str, slot: str, reasons: dict[str, int]) -> str:
    """Letter of one method in one slot, with the number of the reason, which joins ``reasons``."""
    try:
        recipe = Recipe.from_plain({slot: {"method": method}})
        trial = Trial(
            workload, TrialConfig(recipe=recipe, lr=1e-3, seed=0, max_examples=8, batch_size=4)
        )
        trial.train(4)
        pack.member_of(trial)
    except BadInput as error:
        return f"r{number_of(short(str(error)), reasons)}"
    except Unpackable as error:
        return f"a{number_of(short(str(error)), reasons)}"
    return "d"


def short(reason: str) -> str:
    """A reason without what differs between models: the slot and the layers that it has."""
    reason = re.sub(r"slot '\w+'", "the slot", reason)
    reason = re.sub(r"; (it has|its layers are): .*", "", reason)
    return re.sub(
        r"\b(model|moved_connector|language_model|qformer|vision_(model|tower))\S*",
        "a layer",
        reason,
    )


def number_of(reason: str, reasons: dict[str, int]) -> int:
    """Number of a reason."""
    return reasons.setdefault(reason, len(reasons) + 1)


if __name__ == "__main__":
    main()
