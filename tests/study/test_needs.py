"""What each worker of a gang needs is what DeepSpeed takes, whatever it divides and offloads."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from tests.benchmarks import memory


def compared(told: Any, workers: int) -> None:
    """In a process of its own: it believes for good that it is one of several."""
    found = memory.stages(workers, memory.STAGED_MODELS[:1], [("full", "full", "full")])
    told.put({one.name.split()[-1]: one.error_percent for one in found})


@pytest.mark.long
@pytest.mark.deepspeed
def test_it_is_what_the_allocator_gives_out() -> None:
    spawn = multiprocessing.get_context("spawn")
    told = spawn.SimpleQueue()
    process = spawn.Process(target=compared, args=(told, 2))
    process.start()
    errors = told.get()
    process.join()
    assert list(errors) == [f"zero{kind}" for kind in memory.KINDS]
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=5)
