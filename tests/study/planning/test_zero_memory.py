"""What each worker of a gang needs is what DeepSpeed takes, whatever it divides and offloads."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from tests.benchmarks import memory


def compared(told: Any, workers: int, recipe: tuple[str, str, str], questions: int) -> None:
    """In a process of its own: it believes for good that it is one of several."""
    found = memory.stages(workers, memory.STAGED_MODELS[:1], [recipe], questions)
    told.put({one.name.split()[-1]: one.error_percent for one in found})


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("recipe", "questions"), [(("full", "full", "full"), 8), (("frozen", "lora", "lora"), 64)]
)
def test_it_is_what_the_allocator_gives_out(recipe: tuple[str, str, str], questions: int) -> None:
    """Where most is in what is trained, and where most is in what a pass keeps."""
    spawn = multiprocessing.get_context("spawn")
    told = spawn.SimpleQueue()
    process = spawn.Process(target=compared, args=(told, 2, recipe, questions))
    process.start()
    errors = told.get()
    process.join()
    assert list(errors) == [f"zero{kind}" for kind in memory.KINDS]
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=5)
