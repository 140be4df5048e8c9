"""The trained tokens of method ``prompt``: rows before the real tokens, in every block of a slot.

The rows come in after the embeddings. They need no learned position, since a trained vector can
learn what it would add; under RoPE they take the positions before the first real token. Real tokens
keep the positions with which they were pretrained.

In a causal stack the rows come first, so they see each other and nothing else; in other stacks they
see what real tokens see. Between two blocks the rows are set aside, and their keys and values never
enter the cache, so everything outside of a block sees the stack as it is without them. When tokens
are generated one by one, the rows are computed anew at each step, which gives the same result as
one pass over the whole text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.errors import NoMatchingLayer
from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def add(slot: Slot, tokens: int) -> list[str]:
    """Put ``tokens`` trained tokens before the input of the first block of ``slot``.

    Returns:
        names of the trained parameters.

    Raises:
        BadInput: the slot has no blocks, or not all of them have a self-attention.
    """
    blocks = select.modules(slot, ("block",))
    attentions = select.modules(slot, ("self_attention",))
    without = [b for b in blocks if not any(a.startswith(f"{b}.") for a in attentions)]
    if without:
        raise NoMatchingLayer(
            f"slot {slot.name!r} has no self_attention in {len(without)} of its {len(blocks)} "
            f"layers, through which no prompt can pass; it has: {', '.join(sorted(slot.roles))}",
            lacks="self_attention in every layer",
        )
    soft = SoftTokens(slot, tokens)
    slot.module.add_module("soft_tokens", soft)
    slot.module.register_forward_pre_hook(soft.renew)
    for name in blocks:
        block = slot.module.get_submodule(name)
        parameters = tuple(inspect.signature(type(block).forward).parameters)[1:]
        block.register_forward_pre_hook(partial(soft.enter, parameters), with_kwargs=True)
        # Before other hooks, so that they see a block's output without the rows.
        block.register_forward_hook(soft.leave, prepend=True)
    for name in slot.roles["self_attention"]:
        attention = slot.module.get_submodule(name)
        attention.register_forward_pre_hook(soft.attend, with_kwargs=True)
    return select.adapters(slot)


class SoftTokens(nn.Module):
    """N trained tokens as wide as a slot, in peft's embedding, and their rows during a pass."""

    def __init__(self, slot: Slot, tokens: int) -> None:
        from peft import PromptEmbedding, PromptTuningConfig
        from transformers import GenerationMixin

        super().__init__()
        query = slot.module.get_submodule(select.modules(slot, ("query", "qkv"))[0])
        weight = query.get_parameter("weight")
        config = PromptTuningConfig(
            num_virtual_tokens=tokens, num_transformer_submodules=1, token_dim=weight.shape[1]
        )
        embedding = PromptEmbedding(config, None)
        # Initialised on the CPU, so that a seed gives the same values on every device.
        self.embedding = embedding.to(weight.device)
        self.tokens = tokens
        attention = slot.module.get_submodule(slot.roles["self_attention"][0])
        self.causal = getattr(attention, "is_causal", isinstance(slot.module, GenerationMixin))
        # A list, so that torch does not register the module as a part of this one.
        self.rotary = [m for m in slot.module.modules() if _is_rotary(m)][:1]
        self.kinds = {""}
        """Types of layers that have positions of their own, such as layers that see all tokens and
        layers that see some; otherwise there is one type, without a name."""
        if any("layer_type" in inspect.signature(type(m).forward).parameters for m in self.rotary):
            self.kinds = {_layer_type(module) for module in slot.module.modules()} - {""}
        self.rows_1ND: Tensor | None = None
        """The rows as they enter the first block."""
        self.rows_BND: Tensor | None = None
        """The rows as the block that ran last left them."""
        self.turned_1Nd: dict[str, tuple[Tensor, ...]] = {}
        """Cosine and sine of the rows' positions, for RoPE, by the type of layer; most models have
        one, which has no name."""

    def renew(self, *_: Any) -> None:
        """Compute the rows as a forward pass of the slot begins."""
        places_1N = torch.arange(self.tokens, device=next(self.parameters()).device)[None]
        self.rows_1ND, self.rows_BND = self.embedding(places_1N), None
        for rotary in self.rotary:
            for kind in self.kinds:
                given = {"layer_type": kind} if kind else {}
                self.turned_1Nd[kind] = rotary(
                    self.rows_1ND, position_ids=places_1N - self.tokens, **given
                )

    def enter(
        self,
        parameters: Sequence[str],
        block: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Arguments:
        """Put N rows, with their positions, before the input of a block.

        Of an encoder's tokens, the rows see what the first real token sees.
        """
        given = dict(zip(parameters, args, strict=False)) | kwargs
        named = "hidden_states" in kwargs
        hidden_BTD: Tensor = given.pop("hidden_states" if named else parameters[0])
        rows_BND = self.rows_1ND if self.rows_BND is None else self.rows_BND
        assert rows_BND is not None, "the slot's own forward was not called"
        rows_BND = rows_BND.to(hidden_BTD.dtype).expand(len(hidden_BTD), -1, -1)
        if (mask_B1TK := given.get("encoder_attention_mask")) is not None:
            real = hidden_BTD.shape[1]
            given["encoder_attention_mask"] = _as_the_first(mask_B1TK, real, self.tokens)
        if (turns := given.get("position_embeddings")) is not None:
            kind = next((k for m in block.modules() if (k := _layer_type(m)) in self.kinds), "")
            given["position_embeddings"] = tuple(
                torch.cat((ahead_1Nd.expand(len(turn_BTd), -1, -1), turn_BTd), dim=1)
                for ahead_1Nd, turn_BTd in zip(self.turned_1Nd[kind], turns, strict=True)
            )
        return (torch.cat((rows_BND, hidden_BTD), dim=1),), given

    def leave(
        self, _: nn.Module, __: Any, output: Tensor | tuple[Any, ...]
    ) -> Tensor | tuple[Any, ...]:
        """Take the rows off the output of a block, and set them aside until the next block."""
        output_BTD: Tensor = output if isinstance(output, Tensor) else output[0]
        self.rows_BND, real_BTD = output_BTD[:, : self.tokens], output_BTD[:, self.tokens :]
        return real_BTD if isinstance(output, Tensor) else (real_BTD, *output[1:])

    def attend(
        self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        """Give self-attention a mask that includes the rows and a cache that doesn't store them."""
        cache, mask_B1TK = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        cache = getattr(cache, "self_attention_cache", cache)  # if it is a pair, self and cross
        real = (args[0] if args else kwargs["hidden_states"]).shape[1] - self.tokens
        if self.causal and mask_B1TK is None:  # the kernel would have applied a causal mask
            past = cache.get_seq_length(attention.layer_idx) if cache is not None else 0
            device = next(self.parameters()).device
            mask_B1TK = torch.ones(1, 1, real, past + real, dtype=torch.bool, device=device)
            mask_B1TK = mask_B1TK.tril(past)
        if mask_B1TK is not None:
            kwargs = {**kwargs, "attention_mask": self._with_rows(mask_B1TK, real)}
        if cache is not None:
            kwargs = {**kwargs, "past_key_values": _Without(cache, self.tokens)}
        return args, kwargs

    def _with_rows(self, mask_B1TK: Tensor, real: int) -> Tensor:
        """Extend a mask to shape (B, 1, N + T, N + K), with all N rows visible to the real tokens.

        In a causal stack a row sees itself and the rows before it; elsewhere it sees what the first
        real token sees.
        """
        boolean = mask_B1TK.dtype == torch.bool
        seen, hidden = (True, False) if boolean else (0.0, torch.finfo(mask_B1TK.dtype).min)
        mask_B1TK = nn.functional.pad(mask_B1TK, (self.tokens, 0), value=seen)
        mask_B1TK = _as_the_first(mask_B1TK, real, self.tokens)
        if self.causal:
            ahead_B1NK = mask_B1TK[..., : self.tokens, :]
            later_NK = torch.ones_like(ahead_B1NK[0, 0], dtype=torch.bool).triu(1)
            ahead_B1NK.fill_(seen).masked_fill_(later_NK, hidden)
        return mask_B1TK


class _Without:
    """A cache as self-attention sees it: it stores all that it is given but the first rows."""

    def __init__(self, cache: Any, rows: int) -> None:
        self.cache, self.rows = cache, rows

    def update(
        self, keys_BHTd: Tensor, values_BHTd: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return all keys and values: those of the rows, those in the cache, and the new ones."""
        ahead = keys_BHTd[:, :, : self.rows], values_BHTd[:, :, : self.rows]
        real = keys_BHTd[:, :, self.rows :], values_BHTd[:, :, self.rows :]
        keys_BHTd, values_BHTd = self.cache.update(*real, *args, **kwargs)
        return torch.cat((ahead[0], keys_BHTd), dim=2), torch.cat((ahead[1], values_BHTd), dim=2)


def _as_the_first(mask_B1TK: Tensor, real: int, more: int) -> Tensor:
    """A mask with ``more`` rows before its ``real`` ones, equal to the first of those."""
    mask_B1TK = mask_B1TK.expand(-1, -1, real, -1)
    return torch.cat((mask_B1TK[..., :1, :].expand(-1, -1, more, -1), mask_B1TK), dim=-2)


def _layer_type(module: nn.Module) -> str:
    """Type of layer that an attention is of, where its positions depend on that."""
    return str(getattr(module, "layer_type", None) or "")


def _is_rotary(module: nn.Module) -> bool:
    """Whether a module computes RoPE, by its name, since each family has a class of its own."""
    return type(module).__name__.endswith("RotaryEmbedding")
