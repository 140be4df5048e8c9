"""Three real steps run on a batch as it was predicted, or on pieces of it if memory runs out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.memory.heads import share_keys
from tests.trainables.placed import everywhere
from trainables import recipe
from trainables.errors import too_old
from trainables.memory import footprint
from trainables.memory.calibration import measure_steps, synthetic_workload
from trainables.memory.footprint import BatchShape
from trainables.model_contract import Model
from trainables.weight_sharing import share_weights

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = BatchShape(questions=6, images=3, question_tokens=35, answer_tokens=9)


def test_the_batch_is_as_it_was_asked_for(model: Model) -> None:
    made_up = synthetic_workload(model, SHAPE, DEVICE)
    assert BatchShape.measure(made_up.batch("train", range(SHAPE.questions))) == SHAPE


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_takes_what_is_predicted(model: Model, family: str, method: str) -> None:
    if family == "llava" and (old := too_old("fused attention of groups", "torch", "2.13")):
        pytest.skip(f"a processor keeps the attention's weights, and none are predicted: {old}")
    chosen = everywhere(model, method=method)
    model.network.to(DEVICE)
    found = measure_steps(model, chosen, SHAPE, precision="fp32", device=DEVICE)
    assert found is not None and (found.micro_batch, found.pieces) == (6, 1)
    network = share_weights(model.network)
    applied = recipe.apply(chosen, model, network, seed=0)
    predicted = footprint.predict(model, network, applied, training=SHAPE)
    near = 0.25 if DEVICE.type == "cuda" and share_keys(model.network) else 0.1
    assert found.peak == pytest.approx(predicted.peak, rel=near)
    assert found.steps is not None and found.steps.training > found.steps.validation > 0


@pytest.mark.parametrize(("fit", "seen"), [(6, (6, 1)), (3, (3, 2)), (1, (1, 6)), (0, None)])
def test_where_memory_is_out_it_takes_less_at_once(
    model: Model, monkeypatch: pytest.MonkeyPatch, fit: int, seen: tuple[int, int] | None
) -> None:
    losses = model.losses

    def small(network: Any, batch: Any, **settings: Any) -> Any:
        if len(batch.image_B) > fit:
            raise torch.OutOfMemoryError("as a small device would say")
        return losses(network, batch, **settings)

    monkeypatch.setattr(
        type(model), "losses", lambda _, *given, **settings: small(*given, **settings)
    )
    shape = BatchShape(questions=6, images=6, question_tokens=35, answer_tokens=9)
    found = measure_steps(
        model, everywhere(model, method="lora"), shape, precision="fp32", device=DEVICE
    )
    assert (found and (found.micro_batch, found.pieces)) == seen
