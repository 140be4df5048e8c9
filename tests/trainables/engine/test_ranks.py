"""A trial on two workers gives the same losses and answers as on one, whatever divides the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainables import one_rank
from tests.trainables.conftest import OF_CLASSES, OWN, made_up
from trainables.engine import ranks
from trainables.errors import BadInput
from trainables.training.checkpoint import WEIGHTS
from trainables.training.trial import Trial
from trainables.workload import Workload

ROOT = Path(__file__).parents[3]
FAMILIES = (*OWN, one_rank.SPARING)
IN_CI = "qwen2_5_vl"
"""Class of which CI trains on two workers."""


def on_two(kinds: str, folder: Path, models: Sequence[str]) -> dict[str, Any]:
    """Results of two ranks, which must be the same."""
    command = [sys.executable, "-m", "tests.trainables.one_rank", kinds]
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder), *models],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait() for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    found: dict[str, Any] = first
    return found


def compare(kinds: str, folder: Path, models: Sequence[str] = FAMILIES) -> None:
    found = on_two(kinds, folder, models)
    for family in models:
        workload = made_up(one_rank.MODELS[family]())
        as_it_is = one_rank.untuned(workload, "off")
        for kind in kinds.split(","):
            assert found[f"{family}-{kind}-untuned"] == as_it_is, (family, kind)
        for method in ("lora", "full"):
            alone = one_rank.train(workload, "off", method, folder / f"alone-{family}-{method}")
            for kind in kinds.split(","):
                name = f"{family}-{kind}-{method}"
                assert found[name]["losses"] == pytest.approx(alone["losses"], rel=1e-5), name
                validation = found[name]["validation"]
                assert validation == pytest.approx(alone["validation"], rel=1e-5), name
                assert found[name]["answers"] == alone["answers"], name
                (there,) = (folder / name).glob(f"0*/{WEIGHTS}")
                (here,) = (folder / f"alone-{family}-{method}").glob(f"0*/{WEIGHTS}")
                mine, theirs = load_file(here), load_file(there)
                assert {n: t.shape for n, t in mine.items()} == {
                    n: t.shape for n, t in theirs.items()
                }, "what is trained is stored alike, however many trained it"


@pytest.mark.slow
def test_plain_pytorch_on_two_workers(tmp_path: Path) -> None:
    compare("off", tmp_path)


@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("stages", "models"),
    [
        pytest.param("3", OWN, marks=pytest.mark.slow),
        pytest.param("2", (OWN[0], one_rank.SPARING), marks=pytest.mark.slow),
        pytest.param("0,1", (OWN[0], one_rank.SPARING), marks=pytest.mark.by_hand),
    ],
)
def test_deepspeed_on_two_workers(stages: str, models: Sequence[str], tmp_path: Path) -> None:
    """ZeRO-3, which enters every layer, with every family. The others divide what is trained,
    whatever network it belongs to: with one family, and with one model that makes no keys of its
    image's tokens (in ZeRO-3 each does)."""
    compare(stages, tmp_path, models)


@pytest.mark.deepspeed
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(IN_CI) else pytest.mark.by_hand)
        for name in OF_CLASSES
    ],
)
def test_a_class_on_two_workers(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir()
    compare("off,3", tmp_path, [name])


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_pieces_change_no_loss(workload: Workload, micro_batch: int) -> None:
    config = one_rank.config(workload, "lora")
    whole, pieces = Trial(workload, config), Trial(workload, config, micro_batch=micro_batch)
    for _ in range(4):
        assert pieces.step() == pytest.approx(whole.step(), rel=1e-5)
    assert pieces.validation_loss() == pytest.approx(whole.validation_loss(), rel=1e-5)


def test_a_batch_that_workers_cannot_share_is_refused(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "current", lambda: ranks.Ranks(rank=1, count=3))
    with pytest.raises(BadInput, match="batch_size 8 is not a multiple of 3 workers"):
        Trial(workload, one_rank.config(workload, "lora"))


MEETING = """
import sys, time
from datetime import timedelta
from pathlib import Path
from torch import distributed
from trainables.engine import ranks
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
(folder / str(rank)).touch()
while not (folder / str(1 - rank)).exists():  # which imports torch
    time.sleep(0.05)
met, hasty = f"file://{folder}/met", timedelta(seconds=2)
distributed.init_process_group("gloo", init_method=met, rank=rank, world_size=2, timeout=hasty)
ranks.set_timeout(60)
time.sleep(3 * rank)
ranks.barrier()
ranks.set_timeout(1)
if rank == 0:
    began = time.monotonic()
    try:
        distributed.new_group([0, 1])
    except RuntimeError:
        sys.exit(time.monotonic() - began > 30)
    sys.exit("it has not waited for the other")
time.sleep(5)
"""


def test_those_who_have_met_may_take_more_time_or_less(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", MEETING, str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    try:
        assert [process.wait() for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()


def test_alone_nothing_is_exchanged() -> None:
    assert ranks.current() == ranks.Ranks(rank=0, count=1)
    tensor = torch.ones(2)
    assert ranks.summed(tensor) is tensor
    assert ranks.all_gather("mine") == ["mine"] and ranks.broadcast("mine") == "mine"
