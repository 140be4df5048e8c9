"""A model tuned on a base in four bits comes back, here and in plain transformers and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from tests.trainables import made_blip2, made_image_text, made_llava
from tests.trainables.quantised import needs_bitsandbytes
from trainables import recipe
from trainables.errors import BadInput
from trainables.export import peft_adapter, tuned_json, tuned_model
from trainables.export.tuned_json import Description
from trainables.export.tuned_model import TunedModel
from trainables.models.blip_2 import Blip2
from trainables.models.common import model_identity
from trainables.models.common.quantisation import BaseBits
from trainables.models.instructblip import InstructBlip
from trainables.recipe import Recipe
from trainables.shared_layers.quantised_linear import QuantisedLinear
from trainables.weight_sharing import share_weights
from trainables.workload import WorkloadConfig

needs_bitsandbytes()
BLIP_2: dict[str, type[Blip2]] = {"blip_2": Blip2, "instructblip": InstructBlip}
LORA = {"method": "lora", "rank": 4, "targets": "all"}
RECIPES: dict[str, tuple[str, dict[str, Any], BaseBits]] = {
    "llava lora": ("llava", {"vision": LORA, "connector": LORA, "decoder": LORA}, BaseBits()),
    "llava whole connector": (
        "llava",
        {"connector": {"method": "full"}, "decoder": LORA},
        BaseBits(whole=("connector", "vision")),
    ),
    "blip-2 lora": ("blip_2", dict.fromkeys(Blip2.slots, LORA), BaseBits()),
    "instructblip lora": ("instructblip", dict.fromkeys(Blip2.slots, LORA), BaseBits()),
    "qwen lora": ("qwen2_5_vl", {"vision": LORA, "decoder": LORA}, BaseBits()),
    "qwen dora": ("qwen2_5_vl", {"decoder": {"method": "dora"}}, BaseBits()),
    "qwen ia3": ("qwen2_5_vl", {"decoder": {"method": "ia3"}}, BaseBits()),
    "qwen layernorm": ("qwen2_5_vl", {"decoder": {"method": "layernorm"}}, BaseBits()),
}


def tuned(name: str, folder: Path) -> TunedModel:
    """A model of a folder with a recipe, its trained values moved as training would."""
    kind, slots, bits = RECIPES[name]
    if kind in BLIP_2:
        base = made_blip2.write(folder, BLIP_2[kind])
    elif kind == "llava":
        base = made_llava.write(folder, "mistral")
    else:
        base = made_image_text.write(folder, kind)
    size = made_blip2.SIZE if kind in BLIP_2 else made_image_text.SIZE
    config = WorkloadConfig(model=str(base), image_size=size, base_bits=bits)
    model, _ = config.load_model()
    plain = Recipe.from_plain(slots).plain()
    applied = recipe.apply(Recipe.from_plain(plain), model, share_weights(model.network), seed=3)
    drawn = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=drawn).to(p.device)
        for name, p in applied.parameters.items()
    }
    described = Description(
        model=str(base),
        digest=model_identity.digest(model, base),
        recipe=plain,
        seed=3,
        precision="fp32",
        image_size=size,
        answer_tokens=4,
        base_bits=bits,
    )
    return tuned_model.build(described, weights)


def losses(found: TunedModel, network: Any) -> torch.Tensor:
    """Losses of two questions about noise."""
    size = found.model.image_size
    noise_1SSC = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    asked = [("is this normal ?", "yes"), ("what organ is shown ?", "the liver")]
    rows = [found.model.tokenize(question=q, answer=a, image=0) for q, a in asked]
    device = next(network.parameters()).device
    with torch.no_grad():
        return found.model.losses(network, found.model.collate(rows, noise_1SSC).to(device))


@pytest.mark.parametrize("name", RECIPES)
def test_plain_transformers_and_peft_have_the_same_losses(name: str, tmp_path: Path) -> None:
    """With the same settings as the model card gives them."""
    before = tuned(name, tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    before.save(out)
    written = peft_adapter.write(before, out)
    assert written.network
    base = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "base",
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=list(written.skipped),
        ),
    )
    ours = {n for n, m in before.network.named_modules() if isinstance(m, QuantisedLinear)}
    theirs = [n for n, m in base.named_modules() if type(m).__name__ == "Linear4bit"]
    assert len(ours) == len(theirs) > 0
    # Older versions of transformers leave out each layer whose name begins like one of these.
    assert not any(name.startswith(written.skipped) for name in theirs)
    if written.weights is not None:
        from safetensors.torch import load_file

        wrong = base.load_state_dict(load_file(written.weights), strict=False).unexpected_keys
        assert wrong == []
    for place in written.adapters.values():
        base = PeftModel.from_pretrained(base, place).get_base_model()
    expected = losses(before, before.network)
    arranged = before.model.from_transformers(base.eval())
    arranged.train()  # in evaluation, bitsandbytes takes no width that is no multiple of 64
    found = losses(before, arranged)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert not torch.allclose(expected, losses(before, before.model.network), rtol=1e-3)


def test_it_comes_back_as_it_was_and_on_no_other_base(tmp_path: Path) -> None:
    before = tuned("qwen lora", tmp_path / "base")
    before.save(tmp_path)
    after = tuned_model.load(tmp_path)
    assert after.described == before.described
    assert torch.equal(losses(after, after.network), losses(before, before.network))
    text = (tmp_path / tuned_json.FILE).read_text()
    assert '"base_bits": {' in text
    (tmp_path / tuned_json.FILE).write_text(text.replace('"whole": []', '"whole": ["vision"]'))
    with pytest.raises(BadInput, match="is not the one that was tuned"):
        tuned_model.load(tmp_path)
