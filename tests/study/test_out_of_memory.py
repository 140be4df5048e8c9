"""What an out-of-memory teaches: the trial is tried again in less, and all arms have learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from study.conductor import Conductor
from study.placement import Devices as Memory
from study.placement import Infeasible, Placement, as_told, smaller
from study.placements import Placements

WHOLE = as_told(devices=1, deepspeed="off", batch_size=256, sharing=1, reason="")


def test_what_was_learnt_holds_for_the_rest_of_the_study(begin: Callable[..., Conductor]) -> None:
    memory = Memory(count=1, gib=17)
    usable = memory.usable

    def place(arm: str, correction: float) -> Placement | Infeasible:
        """Predicted: 12 GiB for a batch of one arm, 8 for those of the other."""
        needs = {"layernorm": 12, "lora": 8}[arm] * 2**30 * correction
        found = replace(WHOLE, peak=int(needs))
        while found.peak > usable:
            half = smaller(found)
            assert half is not None
            found = replace(half, peak=int(found.peak / 2))
        return found

    first = {arm: place(arm, 1.0) for arm in ("layernorm", "lora")}
    placements = Placements(first, WHOLE, place=place, devices=memory)  # type: ignore[arg-type]
    conductor = begin()
    specs = [spec for spec in (conductor.next() for _ in range(6)) if spec is not None]
    large = next(spec for spec in specs if spec.arm == "layernorm")
    had = placements.of(large)
    note = placements.out_of_memory(large, had)
    assert "256 questions at once" in note and "128 questions at once in 2 pieces" in note
    assert "predicted 12.0 GiB" in note
    assert placements.correction == pytest.approx(1.05 * usable / (12 * 2**30))
    assert placements.of(large).micro_batch == 128
    assert placements.by_arm["lora"].micro_batch == 256, "it fits all the same"
    assert placements.out_of_memory(large, placements.of(large)) == "", "once is enough"
