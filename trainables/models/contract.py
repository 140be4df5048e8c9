"""What a model family gives: slots, the roles of their layers, batches, a loss and answers.

A family is one file in this folder that defines ``load(path, image_size, precision) -> Model``;
without a size images are as large as the folder says. Trials will compute in ``precision``: under
``bf16`` a family may hold its weights in bf16, under ``fp32`` it holds them in fp32. The loaded
model is the *base*: its tensors are shared by all trials of a process and are never written to. A
trial gets a fork of the network (``trainables.fork``) and passes it to the methods below.

A family also defines ``PRESETS``, a dict literal of well-known models of its shape by name, and
``skeleton(source, image_size, precision) -> Skeleton`` for one of them or for a folder: the network
without its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    "block",  # the layer of a stack that holds a self_attention; tokens go from block to block
    "patch",  # the convolution that turns image patches into tokens
    "projection",  # a layer between two parts of a model
)
ANSWER_TOKENS = 10
"""Of a generated answer at most, its end included, unless told otherwise: as MISS was trained."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A part of a network that a method is applied to."""

    name: str
    module: nn.Module
    roles: Mapping[str, tuple[str, ...]]
    """Role -> names of the modules that play it, relative to ``module``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenised question. Tokens include the special ones that the family puts around; the last
    of an answer is its end."""

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
    done: int = 0
    """How many of the family's stages are done already; then there need be no pixels."""
    state: Tensor | None = None
    """What the last of them gave."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``. From pinned memory a CUDA device copies by itself, beside
        what it computes."""
        cuda = device.type == "cuda"
        fields: dict[str, Any] = vars(self)
        moved = {
            name: (t.pin_memory() if cuda and not t.is_cuda else t).to(device, non_blocking=cuda)
            for name, t in fields.items()
            if isinstance(t, Tensor)
        }
        return Batch(**{**fields, **moved})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A piece of the way from a batch to its losses, which some slots compute and no other.

    A family lists its stages in order; what is left is its last slot's. What stages give may be
    computed once and kept, as long as nothing that they run is trained (``trainables.features``).
    """

    slots: tuple[str, ...]
    per: Literal["image", "question"]
    """What a row of the result is about: (U, T, D), or (B, Q, D) as long as the questions are."""
    run: Callable[[nn.Module, Batch, Tensor | None], Tensor]
    """From network, batch and what the stage before gave. A row does not depend on the others."""


def run_stages(
    model: Model | Skeleton, network: nn.Module, batch: Batch, upto: int | None = None
) -> Tensor:
    """What the last stage gives, or the last before ``upto``; those done already are left out."""
    state = batch.state
    for stage in model.stages[batch.done : upto]:
        state = stage.run(network, batch, state)
    assert state is not None, "a family has at least one stage"
    return state


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
        """The base network, frozen and in evaluation mode. What it holds beside the slots is never
        run."""


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A structure without weights, on the meta device: enough to count what a recipe trains and to
    predict the memory that it takes."""

    name: str
    slots: Mapping[str, str]
    parts: Mapping[type[nn.Module], Mapping[str, str]]
    network: nn.Module
    stages: Sequence[Stage]
    losses: Callable[..., Tensor]
    """As ``Model.losses``."""
    image_size: int
    question_tokens: int
    """Of a row at most; tokens that stand for its image included."""
    answer_tokens: int

    @classmethod
    def of(
        cls, model: Model, *, question_tokens: int, answer_tokens: int = ANSWER_TOKENS
    ) -> Skeleton:
        """That of a model whose network is on the meta device."""
        return cls(
            name=model.name,
            slots=model.slots,
            parts=model.parts,
            network=model.network,
            stages=model.stages,
            losses=model.losses,
            image_size=model.image_size,
            question_tokens=question_tokens,
            answer_tokens=answer_tokens,
        )


class Model(Structure, Protocol):
    """A loaded base model."""

    digest: str
    """sha256 of the weights and the configuration."""
    image_size: int
    """Pixels a side of the square images it takes."""
    beams: int
    """Of the search for an answer, unless told otherwise: as the folder or the family's paper has
    it."""

    @property
    def stages(self) -> Sequence[Stage]:
        """The way to the losses up to the last slot, in order."""

    def tokenize(self, *, question: str, answer: str, image: int) -> Row:
        """One question as tokens."""

    def collate(self, rows: Sequence[Row], images_NSSC: np.ndarray[Any, Any] | None) -> Batch:
        """Rows as one padded batch; ``images_NSSC`` is uint8 RGB.

        Each image of the rows is in the batch once, in the order of their indices. Without
        ``images_NSSC`` there are no pixels, for who has what they become.
        """

    def losses(self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Shape (B,): for each question the mean negative log-likelihood of its answer's tokens.

        ``smoothing`` is the share of a token's probability that is spread over the vocabulary
        (label smoothing). A question's loss does not depend on the batch it is in.
        """

    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """B generated answers of at most ``tokens``; like the losses they do not depend on the
        batch. Greedy, or by a search with several ``beams``."""

    def to_transformers(self, network: nn.Module) -> PreTrainedModel | None:
        """A fork of the base as transformers has it, of the same modules; None if it has no such
        network. The fork is of no other use afterwards."""

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Inverse of ``to_transformers``."""


def slot(model: Structure, network: nn.Module, name: str) -> Slot:
    """Slot ``name`` of ``network`` (the base or a fork of it), its layers sorted into roles."""
    module = network.get_submodule(model.slots[name])
    found: dict[str, list[str]] = {role: [] for role in ROLES}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for attribute, role in model.parts.get(type(part), {}).items():
            found[role].append(prefix + attribute)
            if role == "self_attention":
                found["block"].append(path)
        if is_norm(part):
            found["norm"].append(path)
    return Slot(name=name, module=module, roles={role: tuple(p) for role, p in found.items() if p})


def is_norm(module: nn.Module) -> bool:
    """LayerNorm and RMSNorm; each family of transformers has an RMSNorm class of its own."""
    norms = nn.LayerNorm | nn.RMSNorm
    return isinstance(module, norms) or type(module).__name__.endswith("RMSNorm")


def answer_losses(
    logits_BAV: Tensor, answer_BA: Tensor, mask_BA: Tensor, smoothing: float
) -> Tensor:
    """Shape (B,): the mean over each answer's own tokens; see ``Model.losses``."""
    nll_BA = nn.functional.cross_entropy(
        logits_BAV.transpose(1, 2).float(), answer_BA, reduction="none", label_smoothing=smoothing
    )
    return (nll_BA * mask_BA).sum(1) / mask_BA.sum(1)
