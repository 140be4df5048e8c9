"""Any model that transformers' ``AutoModelForImageTextToText`` loads, as MedGemma or Qwen2.5-VL.

An image encoder (slot ``vision``), the layer that maps its output to the decoder's width
(``connector``) and a decoder that reads image and question and writes the answer (``decoder``).
Weights are a folder in the layout of transformers, with tokenizer, chat template and image
processor; no code of the folder is run. It is chosen for a ``model_type`` that no other family has.

The encoder's output is given to the whole network (``mm_encoder_outputs``), which puts it among the
tokens and makes positions and masks itself, so that they are those of the class, whatever they are.
All images are square and of one size, and no image is cut into tiles.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from trainables.cache import hub
from trainables.data.common.wording import BARE, Wording
from trainables.errors import BadInput
from trainables.model_contract import (
    ANSWER_TOKENS,
    Batch,
    Row,
    Skeleton,
    Stage,
    answer_losses,
    run_stages,
)
from trainables.models.common import weights_folder
from trainables.models.common.collate import collate
from trainables.models.common.image_text.images import Layout, image_size_of, image_tokens
from trainables.models.common.image_text.inputs import Inputs
from trainables.models.common.image_text.network import arrange, restore, roles
from trainables.models.common.image_text.shapes import Shapes
from trainables.models.common.image_text.stages import stages as image_stages
from trainables.models.common.prompt import AROUND_TOKENS, QUESTION_TOKENS, Prompt

TRANSFORMERS = "5.18"
"""Oldest transformers that takes an encoder's output (``mm_encoder_outputs``)."""
PREFIX = {"paligemma"}
"""Model types whose ``token_type_ids`` tell the prompt (0) from the answer (1). Others tell what
stands for an image (1) from all else (0)."""
ONE_ROW = "its layers get the patches of all images in one row of a batch"
FOLLOWS_INSTRUCTIONS = True
"""Whether models of this family take an instruction in the prompt, such as how to answer."""


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> ImageTextToText:
    """Load a model folder.

    Weights are held in bf16 if trials compute in bf16 and the weights were published in 16 bits.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape;
            the class is one that can't be done; or it takes no images of that size.
    """
    name = hub.name_of(path)
    weights_folder.needs_tokenizer(path, "tokenizer.json", "tokenizer.model")
    config, kind = _read(path)
    size = image_size_of(config, image_size, name)
    inputs = Inputs(path, config, size, name)
    dtype = _held(config, precision)
    network = weights_folder.read(kind, path, called=config.model_type, dtype=dtype)
    embeddings = network.get_input_embeddings()
    weights_folder.check_tokens(path, inputs.tokenizer, embeddings, replaced=(inputs.image,))
    return ImageTextToText(
        name=name,
        digest=weights_folder.digest(path, image_size),
        network=network,
        image_size=size,
        inputs=inputs,
    )


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights.

    A preset has no processor, which writes an image out in a prompt; there ``image_tokens`` counts.

    Raises:
        BadInput: a setting is impossible, the class is one that can't be done, or
            it takes no images of that size.
    """
    name = hub.name_of(source)
    config, kind = _read(source)
    size = image_size_of(config, image_size, name)
    with weights_folder.configuring(source, config.model_type), torch.device("meta"):
        network = kind(config).eval().requires_grad_(False)
    network.to(_held(config, precision))
    for module in network.modules():
        if getattr(module, "rope_type", None) == "dynamic":  # it looks at the positions' values
            module.rope_type = "default"
    inputs = Inputs(source, config, size, name) if source.is_dir() else None
    model = ImageTextToText(name=name, digest="", network=network, image_size=size, inputs=inputs)
    shapes = Shapes(model.layout, dict(model.slots), model.stages, model.width)
    run = len(inputs.run) if inputs else image_tokens(config, size)
    question_tokens = run + AROUND_TOKENS + QUESTION_TOKENS
    found = Skeleton.from_model(model, question_tokens=question_tokens)
    return replace(found, stages=shapes.stages, losses=shapes.losses)


def _read(path: Path) -> tuple[Any, type[PreTrainedModel]]:
    """Configuration of a folder, and the class of its network.

    Raises:
        BadInput: the configuration is damaged, or its class is none of image, text to text.
    """
    with weights_folder.configuring(path, "image-text-to-text"):
        config: Any = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    kind: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if kind is None:
        raise BadInput(
            f"{path / 'config.json'} is of model_type {config.model_type!r}, which is no class of "
            "AutoModelForImageTextToText in transformers"
        )
    for part in ("vision_config", "text_config", "image_token_id"):
        if getattr(config, part, None) is None:
            raise BadInput(
                f"models of type {config.model_type} can't be tuned: they have no {part}"
            )
    return config, kind


def _held(config: Any, precision: str) -> torch.dtype:
    """The type in which weights are held in memory: matrix products under bf16 would round
    weights of 16 bits anyway."""
    published = config.dtype or getattr(config.text_config, "dtype", None)
    halves = published in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if precision == "bf16" and halves else torch.float32


class _Encoded:
    """Output of the image encoder for each question, as ``get_image_features`` returns it.

    Some classes want a tensor and some a list of tensors; what is set is both.
    """

    def __init__(self, image_BTD: Tensor, width: int) -> None:
        first, *others = image_BTD.split(width, dim=-1)
        self.pooler_output = [*first]
        self.deepstack_features = [[*other] for other in others] or None

    @property
    def pooler_output(self) -> Any:
        """Features of each question's image; B times (T, D)."""
        return self._pooled

    @pooler_output.setter
    def pooler_output(self, pooled: Sequence[Tensor]) -> None:
        self._pooled = _Pooled(pooled)


class _Pooled(list[Tensor]):
    """A list of tensors of one shape that becomes a tensor when it is moved."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """The tensors stacked, on a device and in a type."""
        return torch.stack(list(self)).to(*args, **kwargs)


class ImageTextToText:
    """A base model with its processors; implements ``trainables.model_contract.Model``."""

    beams = 1

    def __init__(
        self, *, name: str, digest: str, network: Any, image_size: int, inputs: Inputs | None
    ) -> None:
        self.name, self.digest, self.network = name, digest, network
        self.image_size = image_size
        self.inputs: Any = inputs
        """Tokenizer, image processor and prompt; None for a preset, which reads no text."""
        self.config = network.config
        self.layout = Layout(network, image_size)
        self.slots: Mapping[str, str] = arrange(network, name)
        # Patches of images side by side are no hindrance, but a dimension before them is.
        batched = self.layout.sizes and not self.layout.tiles
        self.shared_rows = ONE_ROW if batched else ""
        self.parts = roles(network, self.slots)
        # The generation config of the folder may ask for sampling.
        network.generation_config = GenerationConfig()
        given = inspect.signature(type(network).forward).parameters
        self.types = [n for n in ("token_type_ids", "mm_token_type_ids") if n in given]
        self.width: int = network.get_input_embeddings().weight.shape[1]
        """Width of the decoder."""

    @property
    def prompt(self) -> Prompt:
        """The prompt of a folder's model."""
        found: Prompt = self.inputs.prompt
        return found

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the decoder: the image is encoded and mapped to a prompt's tokens."""
        return image_stages(self.config.model_type, self.layout, self.slots, self.shared_rows)

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question within the prompt, and the answer with the end of its turn.

        The image is one token here; ``collate`` writes it out.

        Raises:
            BadInput: there is a system message that the chat template does not take.
        """
        asked, said = self.inputs.prompt.around(question, answer, wording)
        short = self.inputs.shortened(asked)
        return Row(image=image, question=short, answer=(*said, self.inputs.prompt.end))

    def collate(self, rows: Sequence[Row], images_NSSC: NDArray[np.uint8] | None) -> Batch:
        """Pad prompts on the left and answers on the right, so that the two can be joined.

        Repeated images are put in once.
        """
        expanded = [replace(row, question=self.inputs.expanded(row.question)) for row in rows]
        return collate(
            expanded,
            images_NSSC,
            pad=self.inputs.pad,
            question_padding="left",
            pixels=self.inputs.pixels,
        )

    def losses(
        self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0, summed: bool = False
    ) -> Tensor:
        """Mean, or sum, of the negative log-likelihoods of an answer's tokens and its end; (B,)."""
        whole: Any = network
        tokens_BT = torch.cat((batch.question_BQ, batch.answer_BA), dim=1)
        mask_BT = torch.cat((batch.question_mask_BQ, batch.answer_mask_BA), dim=1)
        answers = batch.answer_BA.shape[1]
        logits_BAV = whole(
            input_ids=tokens_BT,
            attention_mask=mask_BT,
            position_ids=self._positions(network, tokens_BT, mask_BT),
            use_cache=False,
            logits_to_keep=answers + 1,  # from the prompt's last token on
            **self._given(network, batch, tokens_BT),
        ).logits[:, :-1]
        return answer_losses(logits_BAV, batch.answer_BA, batch.answer_mask_BA, smoothing, summed)

    @torch.no_grad()
    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """Generate answers by greedy or beam search, with a key-value cache."""
        whole: Any = network
        tokens_BT = whole.generate(
            input_ids=batch.question_BQ,
            attention_mask=batch.question_mask_BQ,
            eos_token_id=self.inputs.prompt.end,
            pad_token_id=self.inputs.pad,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
            **self._given(network, batch, batch.question_BQ),
        )
        tokens_BA = tokens_BT[:, batch.question_BQ.shape[1] :]
        said = self.inputs.tokenizer.batch_decode(tokens_BA, skip_special_tokens=True)
        return [answer.strip() for answer in said]

    def to_transformers(self, network: nn.Module) -> PreTrainedModel:
        """Put the parts back where transformers has them."""
        assert isinstance(network, PreTrainedModel)
        restore(network)
        return network

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Arrange the parts as slots."""
        arrange(network, self.name)
        network.generation_config = GenerationConfig()
        arranged: nn.Module = network.eval()
        return arranged

    def _positions(self, network: nn.Module, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Positions that do not count padding; (B, T), or (3, B, T) where the network has them in
        three dimensions."""
        if not self.layout.patches:
            return (mask_BT.cumsum(1) - 1).clamp(min=0)
        # The network would make them itself, on the device and row by row, and the host would wait
        # for the device some eight times a row.
        whole: Any = network
        tokens, mask = tokens_BT.cpu(), mask_BT.cpu()
        places_3BT, _ = whole.base_model.get_rope_index(
            input_ids=tokens,
            mm_token_type_ids=self._is_image(tokens),
            attention_mask=mask,
            **self.layout.grid(tokens, len(tokens)),
        )
        on_device: Tensor = places_3BT.to(mask_BT.device)
        return on_device

    def _is_image(self, tokens_BT: Tensor) -> Tensor:
        """1 where a token stands for a piece of the image, else 0; (B, T)."""
        return tokens_BT.eq(self.config.image_token_id).long()

    def _given(self, network: nn.Module, batch: Batch, tokens_BT: Tensor) -> dict[str, Any]:
        """Arguments of the network beside tokens and their mask: what is known of the images."""
        image_UTD = run_stages(self, network, batch)
        self.inputs.check_features(image_UTD.shape[1])
        encoded = _Encoded(image_UTD[batch.image_B], self.width)
        types_BT = self._is_image(tokens_BT)
        if self.config.model_type in PREFIX:
            types_BT = torch.zeros_like(tokens_BT)
            types_BT[:, batch.question_BQ.shape[1] :] = 1
        return {
            "mm_encoder_outputs": {"image": encoded},
            **dict.fromkeys(self.types, types_BT),
            **self.layout.grid(tokens_BT, len(tokens_BT)),
        }
