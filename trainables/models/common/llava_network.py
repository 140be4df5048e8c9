"""The network of a LLaVA, as transformers has it and in the parts that are slots here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from trainables.models.common.after_prompt import in_one_piece


class OneLayer(nn.Module):
    """A connector of one layer, which is named as the first layer of a connector of two."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width_out)

    def forward(self, image_UTD: Tensor) -> Tensor:
        """Project the features of images; shape (U, T, D)."""
        projected: Tensor = self.linear_1(image_UTD)
        return projected


class LlavaNetwork(LlavaForConditionalGeneration):
    """LLaVA's network in transformers, which itself supports no connector of one layer."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        if getattr(config, "mm_projector_type", None) == "linear":
            two: Any = self.model.multi_modal_projector
            one = OneLayer(two.linear_1.in_features, two.linear_1.out_features)
            self.model.multi_modal_projector = one


# Weights are published under the names of several versions of transformers, which renames them as
# they are read, but for its own classes alone: of others, those that are registered.
_RENAMING = get_checkpoint_conversion_mapping("llava")
register_checkpoint_conversion_mapping(LlavaNetwork.__name__, _RENAMING, overwrite=True)


class Parts(nn.Module):
    """The parts of a LLaVA under the names of its published weights, so that each is a slot.

    The image encoder is cut after the layer whose output is read (usually the last but one). What
    follows would be computed for nothing and could not learn; it is kept in ``unread``, which is in
    no slot.
    """

    def __init__(self, published: LlavaForConditionalGeneration) -> None:
        super().__init__()
        config: Any = published.config
        whole: Any = published.model
        self.config = config
        tower = whole.vision_tower
        layers = tower.encoder.layers
        # The index counts hidden states: 0 enters the first layer, -1 leaves the last one.
        read = range(len(layers) + 1)[config.vision_feature_layer]
        unread = {"layers": layers[read:], "post_layernorm": tower.post_layernorm}
        tower.encoder.layers, tower.post_layernorm = layers[:read], nn.Identity()
        self.vision_tower = tower
        self.multi_modal_projector = whole.multi_modal_projector
        with torch.device("meta"):
            causal: Any = AutoModelForCausalLM
            self.language_model = causal.from_config(config.text_config)
        self.language_model.model = whole.language_model
        self.language_model.lm_head = published.lm_head
        published.lm_head.register_forward_pre_hook(in_one_piece)
        # The generation config of the folder may ask for sampling.
        self.language_model.generation_config = GenerationConfig()
        self.unread = nn.ModuleDict(unread)

    def whole(self) -> LlavaForConditionalGeneration:
        """Rebuild the published network from the same modules; the parts are then of no use."""
        with torch.device("meta"):
            published: Any = LlavaForConditionalGeneration(self.config)
        tower: Any = self.vision_tower
        unread: Any = self.unread
        tower.encoder.layers = nn.ModuleList([*tower.encoder.layers, *unread["layers"]])
        tower.post_layernorm = unread["post_layernorm"]
        model = published.model
        model.vision_tower, model.multi_modal_projector = tower, self.multi_modal_projector
        decoder: Any = self.language_model
        model.language_model, published.lm_head = decoder.model, decoder.lm_head
        whole: LlavaForConditionalGeneration = published.eval()
        return whole
