"""Memory of trials on a base in four bits is predicted, without weights, as it is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables import made_image_text, made_llava
from tests.trainables.conftest import made_up
from tests.trainables.memory.test_footprint import measure, of_slots, predict
from tests.trainables.quantised import needs_bitsandbytes
from trainables.memory import fake_weights
from trainables.model_lookup import skeleton_of
from trainables.models.common.quantisation import BaseBits
from trainables.workload import WorkloadConfig

needs_bitsandbytes()


@pytest.mark.parametrize(
    ("kind", "first", "rest", "precision"),
    [
        ("llava", "lora", "lora", "bf16"),
        ("qwen2_5_vl", "frozen", "lora", "bf16"),
        ("gemma3", "frozen", "adapter", "fp32"),
        *(
            pytest.param(*combination, marks=pytest.mark.slow)
            for combination in (
                ("tiny", "lora", "lora", "fp32"),
                ("tiny", "frozen", "dora", "bf16"),
                ("llava", "lora", "lora", "fp32"),
                ("llava", "frozen", "ia3", "fp32"),
                ("llava", "layernorm", "layernorm", "bf16"),
                ("internvl", "frozen", "lora", "bf16"),
                ("paligemma", "layernorm", "layernorm", "fp32"),
            )
        ),
    ],
)
def test_it_is_what_the_allocator_gives_out(
    kind: str, first: str, rest: str, precision: str, tmp_path: Path
) -> None:
    name, bits, size = "tiny", BaseBits(), None
    if kind == "llava":
        name = str(made_llava.write(tmp_path / kind))
    elif kind != "tiny":
        name, size = str(made_image_text.write(tmp_path / kind, kind)), made_image_text.SIZE
    config = WorkloadConfig(model=name, image_size=size, precision=precision, base_bits=bits)
    model, _ = config.load_model()
    skeleton = skeleton_of(name, size, precision, bits)
    chosen = of_slots(model, first, rest)
    shape, measured = measure(made_up(model), chosen, precision)
    found = predict(skeleton, chosen, shape, precision=precision)
    assert found.without_base == pytest.approx(measured, rel=0.1)
    held = sum(fake_weights.storage_bytes(model.network).values())
    assert found.weights == pytest.approx(held, rel=0.01)
    whole = predict(skeleton_of(name, size, precision), chosen, shape, precision=precision)
    assert found.weights < whole.weights
