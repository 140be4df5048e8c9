"""The network of a BLIP-2 or InstructBLIP, in the parts that are slots here.

transformers keeps the query tokens beside the Q-Former that reads them; here they are a part of it.
Dropout of the published models is off, as LLaVA's has none: with it, no output of a frozen part
could be cached, and trials could not share a pass. The computation is otherwise transformers' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import GenerationConfig, PreTrainedModel
from transformers.models.blip_2 import modeling_blip_2 as blip2
from transformers.models.instructblip import modeling_instructblip as instructblip
from transformers.models.llama import modeling_llama as llama
from transformers.models.opt import modeling_opt as opt

from trainables.models.common.after_prompt import in_one_piece
from trainables.models.common.image_text.network import Unread

DROPOUTS = ("p", "dropout", "attention_dropout", "layerdrop")
"""Attributes of modules that are a probability of dropout."""


class Queries(nn.Module):
    """The query tokens, which are the same for every image."""

    def __init__(self, query_tokens: nn.Parameter) -> None:
        super().__init__()
        self.query_tokens = query_tokens

    def forward(self, image_UTD: Tensor) -> Tensor:
        """The N query tokens for each image; shape (U, N, D)."""
        return self.query_tokens.expand(len(image_UTD), -1, -1)


class QFormer(nn.Module):
    """The query tokens and the Q-Former, in which they attend to an image."""

    def __init__(self, query_tokens: nn.Parameter, qformer: nn.Module) -> None:
        super().__init__()
        self.queries, self.qformer = Queries(query_tokens), qformer

    def forward(
        self, image_UTD: Tensor, words_BQ: Tensor | None = None, mask_BQ: Tensor | None = None
    ) -> Tensor:
        """What the queries found in each image, of shape (U, N, D).

        InstructBLIP's also read ``words_BQ``, the text of a question for each image, where
        ``mask_BQ`` is true.
        """
        queries_UND = self.queries(image_UTD)
        given: dict[str, Any] = {}
        if words_BQ is not None and mask_BQ is not None:
            seen_B11T = nn.functional.pad(mask_BQ, (queries_UND.shape[1], 0), value=True)
            given = {
                "input_ids": words_BQ,
                "position_ids": (mask_BQ.cumsum(1) - 1).clamp(min=0),
                "attention_mask": seen_B11T[:, None, None],
                "text_tokens": words_BQ.shape[1],
            }
        elif isinstance(self.qformer, instructblip.InstructBlipQFormerModel):
            given = {"input_ids": None}
        found = self.qformer(query_embeds=queries_UND, encoder_hidden_states=image_UTD, **given)
        found_UTD: Tensor = found.last_hidden_state
        return found_UTD[:, : queries_UND.shape[1]]


class Connector(nn.Module):
    """The linear layer from the Q-Former's width to the decoder's."""

    def __init__(self, language_projection: nn.Linear) -> None:
        super().__init__()
        self.language_projection = language_projection

    def forward(self, found_UND: Tensor) -> Tensor:
        """Project what the queries found; shape (U, N, D)."""
        projected_UND: Tensor = self.language_projection(found_UND)
        return projected_UND


TEXT = ("intermediate", "output")
"""Attributes of a Q-Former's layer that are the feed-forward network of a question's tokens."""


class Parts(nn.Module):
    """The parts of a BLIP-2 or InstructBLIP, so that each is a slot.

    What the Q-Former's last layer makes of a question's tokens is not read: the feed-forward
    network that makes it is kept in ``unread``, which is in no slot.
    """

    def __init__(self, published: PreTrainedModel) -> None:
        super().__init__()
        whole: Any = published
        self.config, self.kind = whole.config, type(published)
        self.vision_model = whole.vision_model
        self.qformer = QFormer(whole.query_tokens, whole.qformer)
        self.connector = Connector(whole.language_projection)
        self.language_model = whole.language_model
        # The generation config of the folder may ask for sampling.
        self.language_model.generation_config = GenerationConfig()
        self.language_model.lm_head.register_forward_pre_hook(in_one_piece)
        last, self.unread = whole.qformer.encoder.layer[-1], nn.ModuleDict()
        for name in TEXT:
            if name in last._modules:
                self.unread[name] = getattr(last, name)
                setattr(last, name, Unread())
        for module in self.modules():
            module.__class__ = OWN.get(type(module), type(module))
            for name in DROPOUTS:
                if isinstance(vars(module).get(name), float | int):
                    setattr(module, name, 0.0)

    def whole(self) -> PreTrainedModel:
        """Rebuild the published network from the same modules; the parts are then of no use."""
        with torch.device("meta"):
            published: Any = self.kind(self.config)
        queries: Any = self.qformer.queries
        qformer: Any = self.qformer.qformer
        for name, module in self.unread.items():
            setattr(qformer.encoder.layer[-1], name, module)
        published.vision_model, published.language_model = self.vision_model, self.language_model
        published.qformer, published.query_tokens = qformer, queries.query_tokens
        published.language_projection = self.connector.language_projection
        whole: PreTrainedModel = published.eval()
        return whole


class _Attention:
    """Attention of a Q-Former that takes a cache, through which methods add keys and values."""

    def forward(
        self: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend; input and output have shape (U, T, D). None stands in place of probabilities."""
        elsewhere = encoder_hidden_states is not None
        seen_UTD = encoder_hidden_states if elsewhere else hidden_states
        q_UhTd, k_UhTd, v_UhTd = (
            layer(x_UTD).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for layer, x_UTD in (
                (self.query, hidden_states),
                (self.key, seen_UTD),
                (self.value, seen_UTD),
            )
        )
        if past_key_values is not None and not elsewhere:
            k_UhTd, v_UhTd = past_key_values.update(k_UhTd, v_UhTd)
        mask = encoder_attention_mask if elsewhere else attention_mask
        mixed_UhTd = scaled_dot_product_attention(q_UhTd, k_UhTd, v_UhTd, attn_mask=mask)
        return mixed_UhTd.transpose(1, 2).flatten(2), None


class _Layer:
    """Layer of a Q-Former that takes all tokens but the last ``text_tokens`` for queries.

    A method may put tokens ahead of the queries. They attend to the image as well.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        query_length: int = 0,
        text_tokens: int = 0,
    ) -> Tensor:
        """Compute the layer; input and output have shape (U, T, D)."""
        above: Any = super()
        tokens_UTD: Tensor = above.forward(
            hidden_states,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            hidden_states.shape[1] - text_tokens,
        )
        return tokens_UTD


class Blip2QFormerAttention(_Attention, blip2.Blip2QFormerMultiHeadAttention):
    """Attention of BLIP-2's Q-Former."""


class InstructBlipQFormerAttention(_Attention, instructblip.InstructBlipQFormerMultiHeadAttention):
    """Attention of InstructBLIP's Q-Former."""


class Blip2QFormerLayer(_Layer, blip2.Blip2QFormerLayer):  # type: ignore[misc]  # forwards differ
    """Layer of BLIP-2's Q-Former."""


class InstructBlipQFormerLayer(  # type: ignore[misc]  # forwards differ
    _Layer, instructblip.InstructBlipQFormerLayer
):
    """Layer of InstructBLIP's Q-Former."""


class OptLayer(opt.OPTDecoderLayer):
    """Layer of an OPT whose linear layers get a row for each question, as trials that share a pass
    need it. transformers gives them the tokens of all questions in one dimension."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the layer; input and output have shape (B, T, D)."""
        x_BTD, first = hidden_states, self.do_layer_norm_before
        given: dict[str, Any] = {"past_key_values": past_key_values, **kwargs}
        normed_BTD = self.self_attn_layer_norm(x_BTD) if first else x_BTD
        attended_BTD, _ = self.self_attn(
            hidden_states=normed_BTD, attention_mask=attention_mask, **given
        )
        x_BTD = x_BTD + attended_BTD
        x_BTD = x_BTD if first else self.self_attn_layer_norm(x_BTD)
        normed_BTD = self.final_layer_norm(x_BTD) if first else x_BTD
        x_BTD = x_BTD + self.fc2(self.activation_fn(self.fc1(normed_BTD)))
        out_BTD: Tensor = x_BTD if first else self.final_layer_norm(x_BTD)
        return out_BTD


OWN: dict[type[nn.Module], type[nn.Module]] = {
    blip2.Blip2QFormerMultiHeadAttention: Blip2QFormerAttention,
    blip2.Blip2QFormerLayer: Blip2QFormerLayer,
    instructblip.InstructBlipQFormerMultiHeadAttention: InstructBlipQFormerAttention,
    instructblip.InstructBlipQFormerLayer: InstructBlipQFormerLayer,
    opt.OPTDecoderLayer: OptLayer,
}
"""Type of transformers -> the type above that takes its place."""

_HEADS = {"query": "query", "key": "key", "value": "value"}
_DECODER = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_QKV = {"qkv": "qkv", "projection": "attention_output"}
_MLP = {"fc1": "ffn_in", "fc2": "ffn_out"}
ROLES: dict[type[nn.Module], dict[str, str]] = {
    blip2.Blip2VisionEmbeddings: {"patch_embedding": "patch"},
    blip2.Blip2EncoderLayer: {"self_attn": "self_attention"},
    blip2.Blip2Attention: _QKV,
    blip2.Blip2MLP: _MLP,
    Blip2QFormerLayer: {"attention.attention": "self_attention"},
    Blip2QFormerAttention: _HEADS,
    blip2.Blip2QFormerSelfOutput: {"dense": "attention_output"},
    blip2.Blip2QFormerIntermediate: {"dense": "ffn_in"},
    blip2.Blip2QFormerOutput: {"dense": "ffn_out"},
    instructblip.InstructBlipVisionEmbeddings: {"patch_embedding": "patch"},
    instructblip.InstructBlipEncoderLayer: {"self_attn": "self_attention"},
    instructblip.InstructBlipAttention: _QKV,
    instructblip.InstructBlipMLP: _MLP,
    InstructBlipQFormerLayer: {"attention.attention": "self_attention"},
    InstructBlipQFormerAttention: _HEADS,
    instructblip.InstructBlipQFormerSelfOutput: {"dense": "attention_output"},
    instructblip.InstructBlipQFormerIntermediate: {"dense": "ffn_in"},
    instructblip.InstructBlipQFormerOutput: {"dense": "ffn_out"},
    Connector: {"language_projection": "projection"},
    OptLayer: {"self_attn": "self_attention", **_MLP},
    opt.OPTAttention: {**_DECODER, "out_proj": "attention_output"},
    llama.LlamaDecoderLayer: {"self_attn": "self_attention"},
    llama.LlamaAttention: {**_DECODER, "o_proj": "attention_output"},
    llama.LlamaMLP: {"gate_proj": "ffn_in", "up_proj": "ffn_in", "down_proj": "ffn_out"},
}
"""Roles of the layers of each module type."""
