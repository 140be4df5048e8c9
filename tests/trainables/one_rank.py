"""One of several processes that train the same trials together; see ``test_ranks``.

python -m tests.trainables.one_rank KINDS RANK COUNT FOLDER MODEL ...
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.trainables.conftest import SMALL, WORDS, made_up
from tests.trainables.cut_short import cut
from tests.trainables.models.small import blip
from trainables.engine import ranks
from trainables.engine.training_settings import TrainingSettings
from trainables.models.common.attention import TextAttention
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

STEPS, STOP, BATCH = 6, 3, 8
SPARING = "sparing blip"
MODELS = {
    **SMALL,
    # Its image has so many tokens that no keys are made of them; see
    # ``trainables.shared_layers.absorbed_projections``.
    SPARING: partial(blip.small, WORDS, patch=2, hidden_size=64, num_attention_heads=1),
}


def main() -> None:
    """Write the results of each model and engine."""
    kinds, rank, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    # Before there are ranks: of these, transformers lets the first one alone write a model.
    models = {name: MODELS[name]() for name in sys.argv[5:]}
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=count,
        timeout=timedelta(minutes=5),
    )
    found, looked, usual = {}, list[bool](), TextAttention._look
    TextAttention._look = lambda *args: looked.append(True) or usual(*args)
    for family, model in models.items():
        workload = made_up(model)
        for kind in kinds.split(","):
            for method in ("lora", "full"):
                name = f"{family}-{kind}-{method}"
                found[name] = train(workload, kind, method, folder / name)
            found[f"{family}-{kind}-untuned"] = untuned(workload, kind)
    if "2" in kinds.split(","):
        apart(workload, folder / "apart")
    assert looked or SPARING not in models, "keys were made everywhere"
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def config(workload: Workload, method: str) -> TrialConfig:
    """Configuration of a trial with one method in all slots."""
    return TrialConfig(
        recipe=Recipe.from_plain(
            {slot: {"method": method, "everywhere": True} for slot in workload.model.slots}
        ),
        lr=1e-3,
        seed=0,
        max_examples=BATCH * STEPS,
        batch_size=BATCH,
        training=TrainingSettings(weight_decay=0.1),
    )


def train(workload: Workload, kind: str, method: str, checkpoint: Path) -> dict[str, Any]:
    """A trial, stopped and taken up again; two pieces of two questions on each of two ranks. It was
    saved twice, and a machine failed then: the second time lacks a byte of the last rank's."""
    settings = config(workload, method)
    first = Trial(workload, settings, deepspeed=kind, micro_batch=2, evaluation_batch=2)
    losses = [first.step() for _ in range(STOP)]
    first.save(checkpoint)
    alone = ranks.current().first
    if alone:
        shutil.copytree(checkpoint, checkpoint.with_suffix(".before"))
    first.step()
    first.save(checkpoint)
    del first
    if alone:
        cut(max(checkpoint.rglob("*.pt")), "by a byte")
        shutil.copytree(checkpoint.with_suffix(".before"), checkpoint, dirs_exist_ok=True)
    ranks.barrier()
    second = Trial(workload, settings, deepspeed=kind, micro_batch=2, evaluation_batch=2)
    assert second.restore(checkpoint)
    assert (second.examples_seen, second.broken) == (BATCH * STOP, [BATCH * (STOP + 1)])
    losses += [second.step() for _ in range(STOP, STEPS)]
    second.save(checkpoint)
    return {
        "losses": losses,
        "validation": second.validation_loss(),
        "answers": second.answers("test"),
    }


def apart(workload: Workload, folder: Path) -> None:
    """Machines that share no folder: each has what its rank wrote and gets the rest, as by a store.
    What one of them lacks, none goes on from."""
    here, there = (folder / str(abs(rank - ranks.current().rank)) for rank in (0, 1))
    first = Trial(workload, config(workload, "lora"), deepspeed="2")
    first.step()
    assert first.save(here), "each answers for its own"
    again = Trial(workload, config(workload, "lora"), deepspeed="2")
    assert not again.restore(here) and again.broken == [BATCH], "its own part is not the whole"
    for file in sorted(path for path in there.rglob("*") if path.is_file()):
        mine = here / file.relative_to(there)
        mine.parent.mkdir(exist_ok=True)
        if not mine.exists():
            shutil.copy(file, mine)
    ranks.barrier()
    if not ranks.current().first:
        shutil.copytree(here, folder / "whole")
        cut(max(here.rglob("*.pt")), "by a byte")
    assert not again.restore(here) and again.broken == [BATCH]
    if not ranks.current().first:
        shutil.copytree(folder / "whole", here, dirs_exist_ok=True)
    assert again.restore(here) and again.examples_seen == BATCH


def untuned(workload: Workload, kind: str) -> dict[str, Any]:
    """Answers of the base, before and after the first trial that had it is gone."""
    answers = [
        Trial(workload, config(workload, "frozen"), deepspeed=kind, evaluation_batch=2).answers(
            "test"
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    return {"answers": answers[0]}


if __name__ == "__main__":
    main()
