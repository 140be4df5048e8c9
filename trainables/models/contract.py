"""What a model family gives: slots, the roles of their layers, batches, a loss and answers.

A family is one file in this folder that defines ``load(path) -> Model``. The loaded model is the
*base*: its tensors are shared by all trials of a process and are never written to. A trial gets a
fork of the network (``trainables.fork``) and passes it to the methods below.

A family also defines ``PRESETS``, a dict literal of well-known models of its shape by name, and
``skeleton(source) -> Skeleton`` for one of them or for a folder: the network without its weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

ROLES = (
    "norm",  # LayerNorm, RMSNorm
    "query",
    "key",
    "value",
    "qkv",  # the three fused in one projection
    "attention_output",
    "ffn_in",
    "ffn_out",
    "self_attention",  # the module around query, key and value; not cross-attention
    "patch",  # the convolution that turns image patches into tokens
)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A part of a network that a method is applied to."""

    name: str
    module: nn.Module
    roles: Mapping[str, tuple[str, ...]]
    """Role -> names of the modules that play it, relative to ``module``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenised question. Tokens include the special ones that the family puts around."""

    image: int
    """Index into the resident images."""
    question: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of B questions about U <= B different images: each image is encoded once.

    Legend: U images, C channels, S pixels a side, B questions, Q question tokens, A answer tokens.
    """

    pixels_UCSS: Tensor
    image_B: Tensor
    question_BQ: Tensor
    question_mask_BQ: Tensor
    answer_BA: Tensor
    answer_mask_BA: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class Structure(Protocol):
    """What a recipe is applied to: a network and where its slots are."""

    @property
    def name(self) -> str:
        """As users know it."""

    @property
    def slots(self) -> Mapping[str, str]:
        """Slot -> name of its submodule in ``network``."""

    @property
    def parts(self) -> Mapping[type[nn.Module], Mapping[str, str]]:
        """Module type -> attribute -> role. This, not a substring, decides what a layer is."""

    @property
    def network(self) -> nn.Module:
        """The base network, frozen and in evaluation mode."""


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A structure without weights, on the meta device: enough to count what a recipe trains."""

    name: str
    slots: Mapping[str, str]
    parts: Mapping[type[nn.Module], Mapping[str, str]]
    network: nn.Module


class Model(Structure, Protocol):
    """A loaded base model."""

    digest: str
    """sha256 of the weights and the configuration."""
    image_size: int
    """Pixels a side of the square images it takes."""

    def tokenize(self, *, question: str, answer: str, image: int) -> Row:
        """One question as tokens."""

    def collate(self, rows: Sequence[Row], images_NSSC: np.ndarray[Any, Any]) -> Batch:
        """Rows as one padded batch; ``images_NSSC`` is uint8 RGB."""

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Shape (B,): for each question the mean negative log-likelihood of its answer's tokens.

        A question's loss does not depend on the batch it is in.
        """

    def answers(self, network: nn.Module, batch: Batch) -> list[str]:
        """B generated answers; like the losses they do not depend on the batch."""


def slot(model: Structure, network: nn.Module, name: str) -> Slot:
    """Slot ``name`` of ``network`` (the base or a fork of it), its layers sorted into roles."""
    module = network.get_submodule(model.slots[name])
    found: dict[str, list[str]] = {role: [] for role in ROLES}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for attribute, role in model.parts.get(type(part), {}).items():
            found[role].append(prefix + attribute)
        if _is_norm(part):
            found["norm"].append(path)
    return Slot(name=name, module=module, roles={role: tuple(p) for role, p in found.items() if p})


def _is_norm(module: nn.Module) -> bool:
    """LayerNorm and RMSNorm; each family of transformers has an RMSNorm class of its own."""
    norms = nn.LayerNorm | nn.RMSNorm
    return isinstance(module, norms) or type(module).__name__.endswith("RMSNorm")
