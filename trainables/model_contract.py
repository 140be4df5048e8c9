"""Contract of a model family: its slots, roles of layers, batches, losses and generated answers.

A family is one file of ``trainables/models``. It defines
``load(path, image_size, precision) -> Model``. Without ``image_size``, images have the size that
the model's folder names. Trials compute in ``precision``: under ``bf16`` a family may hold its
weights in bf16, under ``fp32`` it holds them in fp32. The loaded model is the *base*. All trials of
a process share its tensors, and none writes to them: a trial gets a weight-sharing copy of the
network (``trainables.weight_sharing``) and passes it to the methods below. The family's file is
called as the ``model_type`` in the ``config.json`` of its models, by which it is found; ``_``
stands for ``-``.

A family also defines ``skeleton(source, image_size, precision) -> Skeleton``: the network of a
folder, or of a preset, without its weights. A preset is a file of ``trainables/models/presets``:
the ``config.json`` of a published model, which transformers reads as it reads a folder. For the
contract tests a family defines ``small(words) -> Model``, a small random model that knows these
words (that of ``blip`` and ``llava`` is in the tests).

A network may be of transformers or of the family's own modules. Methods ask this of it:

- A layer with a role is called as a module, and a linear one is an ``nn.Linear``. So neither
  ``nn.MultiheadAttention``, which only reads weights, nor ``Conv1D`` of GPT-2 will do.
- A block and a self-attention are given tokens, of shape (B, T, D), as first argument or as
  ``hidden_states``, and return as many, alone or first in a tuple. They may be given more tokens
  than the family gave.
- A self-attention that masks is given its mask as ``attention_mask`` and its cache as
  ``past_key_values``, by name, and has the attribute ``is_causal``, as those of transformers.
- Pixels are fp32. Where weights may be held in bf16, all runs under autocast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.common.wording import BARE, Wording
from trainables.devices import accelerator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GATED = "RMSNormGated"
"""End of the class names of norms that also multiply by a gate."""
ANSWER_TOKENS = 10
"""Default maximum of tokens in a generated answer, its end token included, as MISS was trained."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Part of a network that a method is applied to."""

    name: str
    module: nn.Module
    roles: Mapping[str, tuple[str, ...]]
    """Names of the modules that play each role (``trainables.methods.common.roles``), relative to
    ``module``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenised question. Tokens include the special tokens that the family adds; the last
    token of an answer is its end token."""

    image: int
    """Index of the question's image among all images of the workload."""
    question: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of B questions about U <= B different images; each image is encoded once.

    Legend: U images, C channels, S pixels a side, B questions, Q question tokens, A answer tokens.
    """

    pixels_UCSS: Tensor
    image_B: Tensor
    question_BQ: Tensor
    question_mask_BQ: Tensor
    answer_BA: Tensor
    answer_mask_BA: Tensor
    done: int = 0
    """Number of the family's stages that are done; if it is above 0, pixels may be missing."""
    state: Tensor | None = None
    """Output of the last stage that is done; None if no stage is done."""

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to ``device``. The copy to a CUDA device is from pinned memory and runs
        while other work goes on."""
        pins = accelerator.pins(device)
        fields: dict[str, Any] = vars(self)
        moved = {
            name: (t.pin_memory() if pins and t.is_cpu else t).to(device, non_blocking=pins)
            for name, t in fields.items()
            if isinstance(t, Tensor)
        }
        return Batch(**{**fields, **moved})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Part of the computation from a batch to its losses, done by certain slots and no other.

    A family lists its stages in order; the model's last slot computes the rest. A stage's output
    may be computed once and cached as long as nothing that the stage runs is trained
    (``trainables.training.frozen_features``).
    """

    slots: tuple[str, ...]
    per: Literal["image", "question"]
    """What a row of the output stands for: an image, in shape (U, T, D), or a question, in shape
    (B, Q, D), where Q is the length of the questions."""
    run: Callable[[nn.Module, Batch, Tensor | None], Tensor]
    """Function that computes the output from network, batch and the previous stage's output. Rows
    of the output must not depend on one another."""
    shared_rows: str = ""
    """Reason why layers of the slots do not get a row for each image or question, such as that an
    encoder gets the patches of all images in one row; empty if they do. Trials that train there
    take their steps alone."""
    kept_whole: bool = False
    """Whether a cached output keeps its type where trials compute in bf16. It need not where it
    only goes into matrix products, which round it to bf16 anyway."""


def run_stages(
    model: Model | Skeleton, network: nn.Module, batch: Batch, upto: int | None = None
) -> Tensor:
    """Output of the last stage, or of the last one before stage ``upto``. Stages that are done are
    skipped."""
    state = batch.state
    for stage in model.stages[batch.done : upto]:
        state = stage.run(network, batch, state)
    assert state is not None, "a family has at least one stage"
    return state


class Structure(Protocol):
    """Network with named slots, to which a recipe is applied."""

    @property
    def name(self) -> str:
        """Model name as users know it."""

    @property
    def slots(self) -> Mapping[str, str]:
        """Name of each slot's submodule in ``network``."""

    @property
    def parts(self) -> Mapping[type[nn.Module], Mapping[str, str]]:
        """Role of a module type's attributes: type -> attribute -> role. The type, not a substring
        of a name, decides what a layer is. The attribute "" stands for the module itself; one that
        a module of the type lacks is passed over."""

    @property
    def network(self) -> nn.Module:
        """Base network, frozen and in evaluation mode. Modules outside all slots are never run."""


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Structure without weights, on the meta device: enough to count what a recipe trains and to
    predict the memory that it takes."""

    name: str
    slots: Mapping[str, str]
    parts: Mapping[type[nn.Module], Mapping[str, str]]
    network: nn.Module
    stages: Sequence[Stage]
    losses: Callable[..., Tensor]
    """Losses of a batch, computed as by ``Model.losses``."""
    image_size: int
    question_tokens: int
    """Maximum number of tokens of a question, including tokens that stand for its image."""
    answer_tokens: int
    longest_answer: int | None = None
    """Maximum number of tokens of an answer for which the network has positions; None if there is
    no limit."""

    @classmethod
    def from_model(
        cls,
        model: Model,
        *,
        question_tokens: int,
        answer_tokens: int = ANSWER_TOKENS,
        longest_answer: int | None = None,
    ) -> Skeleton:
        """Skeleton of a model whose network is on the meta device."""
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
            longest_answer=longest_answer,
        )


class Model(Structure, Protocol):
    """A loaded base model."""

    digest: str
    """SHA-256 of the weights and the configuration."""
    image_size: int
    """Pixels a side of the square images that the model takes."""
    beams: int
    """Default number of beams in the search for an answer, as in the folder or the family's
    paper."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Stages of the computation of losses up to the last slot, in order."""

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise one question, with the texts of ``wording`` around it.

        A question may be cut off if it is too long, but not the texts around it, which hold its
        options.

        Raises:
            BadInput: ``wording`` has a system message, but the model has no chat template that
                takes one; or the texts are too long for the model.
        """

    def collate(self, rows: Sequence[Row], images_NSSC: np.ndarray[Any, Any] | None) -> Batch:
        """Make one padded batch of rows; ``images_NSSC`` is uint8 RGB.

        Each image of the rows is in the batch once, in the order of the indices. Without
        ``images_NSSC`` the batch has no pixels, for callers that have the output of the stages that
        read them.
        """

    def losses(
        self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0, summed: bool = False
    ) -> Tensor:
        """Mean negative log-likelihood of the tokens of each question's answer, its end among them,
        of shape (B,); the sum if ``summed``.

        ``smoothing`` is the share of a token's probability that is spread over the vocabulary
        (label smoothing). A question's loss does not depend on the batch it is in.
        """

    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """Generate B answers of at most ``tokens`` tokens, greedily or by a search with several
        ``beams``. Like a loss, an answer does not depend on the batch it is in."""

    def to_transformers(self, network: nn.Module) -> PreTrainedModel | None:
        """Make the network of the family's class in transformers from the same modules; None if
        transformers has no such class.

        ``network`` is a weight-sharing copy of the base; it can't be used afterwards.
        """

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Make the family's network from that of its class in transformers, as the inverse of
        ``to_transformers``."""


def answer_room(model: Structure, rows: Iterable[Row]) -> int | None:
    """Number of tokens that an answer to the longest of these questions may have, its end token
    included; None if there is no limit.

    A model whose decoder looks positions up in a table has an attribute ``positions``: the number
    of tokens of a question and its answer together for which there are positions.
    """
    positions: int | None = getattr(model, "positions", None)
    return None if positions is None else positions - max(len(row.question) for row in rows)


def slot(model: Structure, network: nn.Module, name: str) -> Slot:
    """Slot ``name`` of ``network``, which is the base or a copy of it, with its layers sorted into
    roles."""
    module = network.get_submodule(model.slots[name])
    found: dict[str, list[str]] = defaultdict(list)
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for attribute, role in model.parts.get(type(part), {}).items():
            if not attribute:
                found[role].append(path)
            elif _has(part, attribute):
                found[role].append(prefix + attribute)
                if role == "self_attention":
                    found["block"].append(path)
        if is_norm(part):
            found["norm"].append(path)
    roles = {role: tuple(dict.fromkeys(paths)) for role, paths in found.items()}
    return Slot(name=name, module=module, roles=roles)


def _has(module: nn.Module, attribute: str) -> bool:
    """Whether a module has a submodule: of one type, some layers may have another attention."""
    try:
        module.get_submodule(attribute)
    except AttributeError:
        return False
    return True


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a LayerNorm or RMSNorm. Class names are compared too, since each family
    of transformers has an RMSNorm class of its own."""
    norms = nn.LayerNorm | nn.RMSNorm
    return isinstance(module, norms) or type(module).__name__.endswith(("RMSNorm", GATED))


def is_gated(module: nn.Module) -> bool:
    """Whether a norm also multiplies by a gate, which it is given as second argument."""
    return type(module).__name__.endswith(GATED)


def answer_losses(
    logits_BAV: Tensor, answer_BA: Tensor, mask_BA: Tensor, smoothing: float, summed: bool = False
) -> Tensor:
    """Mean loss over the tokens of each answer, padding left out, of shape (B,). ``smoothing`` and
    ``summed`` are those of ``Model.losses``."""
    nll_BA = nn.functional.cross_entropy(
        logits_BAV.transpose(1, 2).float(), answer_BA, reduction="none", label_smoothing=smoothing
    )
    total_B = (nll_BA * mask_BA).sum(1)
    return total_B if summed else total_B / mask_BA.sum(1)
