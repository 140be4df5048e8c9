"""LLaVA (Liu et al. 2023, arXiv 2304.08485), the architecture of LLaVA-Med (arXiv 2306.00890).

A CLIP tower encodes the image (slot ``vision``), a linear layer or two turn its patches into tokens
(``connector``), and a Llama, Vicuna or Mistral reads them among the question's tokens and goes on
with the answer (``decoder``). Weights are a folder in the layout of
``transformers.LlavaForConditionalGeneration``, of any of its versions, as the hub's ``llava-hf``
models are. A connector of one layer, as in LLaVA-Med's first version, has no ``linear_2`` there,
and its ``config.json`` says ``"mm_projector_type": "linear"``, the word of LLaVA's authors.

It is no class of ``image_text_to_text.py``, which lacks three things that are here: connectors of
one layer, images of another size, and prompts for decoders without a chat template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedModel,
)
from transformers.models.clip import modeling_clip as clip
from transformers.models.llama import modeling_llama as llama
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.mistral import modeling_mistral as mistral

from trainables.cache import hub
from trainables.data.common.wording import BARE, Wording
from trainables.errors import BadInput
from trainables.model_contract import (
    ANSWER_TOKENS,
    Batch,
    Row,
    Skeleton,
    Stage,
    run_stages,
)
from trainables.models.common import clip as clip_tower
from trainables.models.common import normalisation, prompt, weights_folder
from trainables.models.common.after_prompt import generate_after, losses_after, with_images
from trainables.models.common.collate import collate
from trainables.models.common.llava_network import LlavaNetwork, OneLayer, Parts
from trainables.models.common.normalisation import CLIP, Normalisation
from trainables.models.common.prompt import Prompt, word_of

TRANSFORMERS = "5.9"
"""Oldest transformers with which models of this family are what the tests say."""
FOLLOWS_INSTRUCTIONS = True
"""Whether models of this family take an instruction in the prompt, such as how to answer."""


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> Llava:
    """Load a model folder. For another ``image_size``, position embeddings are interpolated.

    ``_held`` decides in which type the weights are held.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape;
            the model has other parts than CLIP and Llama or Mistral; or patches do not fill an
            image of that size.
    """
    weights_folder.needs_tokenizer(path, "tokenizer.json", "tokenizer.model")
    with weights_folder.configuring(path, "LLaVA"):
        config = LlavaConfig.from_pretrained(path, local_files_only=True)
    _check(config, path)
    dtype = _held(config, precision)
    network = weights_folder.read(LlavaNetwork, path, called="LLaVA", dtype=dtype)
    if image_size is not None:
        embeddings = network.model.vision_tower.embeddings
        positions_1TD = clip_tower.positions(embeddings, image_size)
        embeddings.position_embedding = nn.Embedding(*positions_1TD[0].shape)
        embeddings.position_embedding.weight = nn.Parameter(positions_1TD[0], requires_grad=False)
        embeddings.num_positions = positions_1TD.shape[1]
        embeddings.position_ids = torch.arange(positions_1TD.shape[1])[None]
        embeddings.image_size = network.config.vision_config.image_size = image_size
    with weights_folder.reading(f"the tokenizer of {path} can't be read"):
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    image = network.config.image_token_id
    embeddings = network.get_input_embeddings()
    weights_folder.check_tokens(path, tokenizer, embeddings, replaced=(image,))
    images = normalisation.of_folder(path)
    return Llava(
        name=hub.name_of(path),
        digest=weights_folder.digest(path, image_size, images.off_default),
        network=Parts(network).eval().requires_grad_(False),
        tokenizer=tokenizer,
        images=images,
    )


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights.

    Raises:
        BadInput: a setting is impossible; the model has other parts than CLIP and
            Llama or Mistral; or patches do not fill an image of that size.
    """
    name = hub.name_of(source)
    with weights_folder.configuring(source, "LLaVA"), torch.device("meta"):
        config = LlavaConfig.from_pretrained(source, local_files_only=True)
        _check(config, name)
        if image_size is not None:
            vision: Any = config.vision_config
            clip_tower.check_size(image_size, vision.patch_size)
            vision.image_size = image_size
        network = Parts(LlavaNetwork(config)).eval().requires_grad_(False)
    network.to(_held(config, precision))
    model = Llava(name=name, digest="", network=network, tokenizer=None)
    question_tokens = model.image_tokens + prompt.AROUND_TOKENS + prompt.QUESTION_TOKENS
    return Skeleton.from_model(model, question_tokens=question_tokens)


def _held(config: Any, precision: str) -> torch.dtype:
    """The type in which weights are held in memory.

    It is bf16 if trials compute in bf16 and the weights were published in 16 bits: matrix products
    would round them anyway, and LLaVA-Med v1.5 takes 28 GiB in fp32.
    """
    halves = config.dtype in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if precision == "bf16" and halves else torch.float32


def _check(config: Any, source: object) -> None:
    """Refuse parts whose layers have no roles here.

    Raises:
        BadInput: the parts are not CLIP and Llama or Mistral, or several layers of CLIP are read.
    """
    for part, known in (("vision", CLIPVisionConfig), ("text", LlamaConfig | MistralConfig)):
        found = getattr(config, f"{part}_config")
        if not isinstance(found, known):
            allowed = {"vision": "clip_vision_model", "text": "llama, mistral"}[part]
            raise BadInput(f"the {part} part of {source} is a {found.model_type}; known: {allowed}")
    if not isinstance(config.vision_feature_layer, int):
        raise BadInput(f"{source} reads several layers of its image encoder; known: one")


_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_GATED = {"gate_proj": "ffn_in", "up_proj": "ffn_in", "down_proj": "ffn_out"}


class Llava:
    """A LLaVA base model with its tokenizer; implements ``trainables.model_contract.Model``."""

    slots: Mapping[str, str] = MappingProxyType(
        {
            "vision": "vision_tower",
            "connector": "multi_modal_projector",
            "decoder": "language_model",
        }
    )
    parts: Mapping[type[nn.Module], Mapping[str, str]] = MappingProxyType(
        {
            clip.CLIPVisionEmbeddings: {"patch_embedding": "patch"},
            clip.CLIPEncoderLayer: {"self_attn": "self_attention"},
            clip.CLIPAttention: {**_ATTENTION, "out_proj": "attention_output"},
            clip.CLIPMLP: {"fc1": "ffn_in", "fc2": "ffn_out"},
            LlavaMultiModalProjector: {"linear_1": "projection", "linear_2": "projection"},
            OneLayer: {"linear_1": "projection"},
            llama.LlamaDecoderLayer: {"self_attn": "self_attention"},
            llama.LlamaAttention: {**_ATTENTION, "o_proj": "attention_output"},
            llama.LlamaMLP: _GATED,
            mistral.MistralDecoderLayer: {"self_attn": "self_attention"},
            mistral.MistralAttention: {**_ATTENTION, "o_proj": "attention_output"},
            mistral.MistralMLP: _GATED,
        }
    )

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        network: Parts,
        tokenizer: Any,
        images: Normalisation = CLIP,
    ) -> None:
        self.pixels = normalisation.pixels_of(images)
        self.name, self.digest, self.network, self.tokenizer = name, digest, network, tokenizer
        config = network.config
        self.beams = 1  # LLaVA and LLaVA-Med answer greedily
        self.image_size: int = config.vision_config.image_size
        self.image: int = config.image_token_id
        """Token that stands for the image in a prompt. It is never looked up in the embeddings."""
        patches = (self.image_size // config.vision_config.patch_size) ** 2
        self.with_class = config.vision_feature_select_strategy == "full"
        self.image_tokens: int = patches + self.with_class
        if tokenizer is None:
            return  # a skeleton reads no text
        image_word = word_of(self.image, "image_token_index", tokenizer, name)
        if tokenizer.eos_token_id is None:
            raise BadInput(f"the tokenizer of {name} has no eos_token, which ends an answer")
        self.end: int = tokenizer.eos_token_id
        self.pad: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.prompt = Prompt(
            name=name,
            tokenizer=tokenizer,
            image_word=image_word,
            decoder=config.text_config.model_type,
        )

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question within the prompt, and the answer as it goes on from there.

        The image is one token here; ``collate`` repeats it for each token that the image encoder
        gives.

        Raises:
            BadInput: there is a system message that the chat template does not take.
        """
        asked, said = self.prompt.around(question, answer, wording)
        return Row(image=image, question=tuple(asked), answer=(*said, self.end))

    def collate(self, rows: Sequence[Row], images_NSSC: NDArray[np.uint8] | None) -> Batch:
        """Pad prompts on the left and answers on the right, so that the two can be joined.

        Repeated images are put in once.
        """
        expanded = [replace(row, question=self._expanded(row.question)) for row in rows]
        return collate(
            expanded, images_NSSC, pad=self.pad, question_padding="left", pixels=self.pixels
        )

    def _expanded(self, question: Sequence[int]) -> tuple[int, ...]:
        """The question with as many tokens for the image as the image encoder gives."""
        at = question.index(self.image)
        return (*question[:at], *[self.image] * self.image_tokens, *question[at + 1 :])

    def losses(
        self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0, summed: bool = False
    ) -> Tensor:
        """Mean, or sum, of the negative log-likelihoods of an answer's tokens and its end; (B,)."""
        prompt_BQD = self._prompt(network, batch)
        return losses_after(prompt_BQD, network.language_model, batch, smoothing, summed)

    @torch.no_grad()
    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """Generate answers by greedy or beam search, with a key-value cache."""
        tokens_BA = generate_after(
            self._prompt(network, batch),
            network.language_model,
            batch,
            eos_token_id=self.end,
            pad_token_id=self.pad,
            max_new_tokens=tokens,
            num_beams=beams,
        )
        said = self.tokenizer.batch_decode(tokens_BA, skip_special_tokens=True)
        return [answer.strip() for answer in said]

    def to_transformers(self, network: nn.Module) -> PreTrainedModel | None:
        """Rebuild transformers' network; None if transformers does not support the connector."""
        assert isinstance(network, Parts)
        one_layer = isinstance(network.multi_modal_projector, OneLayer)
        return None if one_layer else network.whole()

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Divide transformers' network into its parts."""
        assert isinstance(network, LlavaForConditionalGeneration)
        return Parts(network).eval()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the decoder: the image is encoded, then mapped to a prompt's tokens."""
        return (
            Stage(slots=("vision",), per="image", run=self._encode),
            Stage(slots=("connector",), per="image", run=self._connect),
        )

    def _encode(self, network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        """Encode the images; shape (U, T, D)."""
        parts: Any = network
        image_UTD: Tensor = parts.vision_tower(batch.pixels_UCSS).last_hidden_state
        return image_UTD if self.with_class else image_UTD[:, 1:].contiguous()

    def _connect(self, network: nn.Module, _: Batch, image_UTD: Tensor | None) -> Tensor:
        """Map the features of images to the width of the decoder; shape (U, T, D)."""
        parts: Any = network
        connected_UTD: Tensor = parts.multi_modal_projector(image_UTD)
        return connected_UTD

    def _prompt(self, network: nn.Module, batch: Batch) -> Tensor:
        """Embeddings of the prompt's tokens, those of the image among them; shape (B, Q, D)."""
        parts: Any = network
        connected_UTD = run_stages(self, network, batch)
        is_image_BQ = batch.question_BQ == self.image
        words_BQ = batch.question_BQ.masked_fill(is_image_BQ, 0)
        words_BQD: Tensor = parts.language_model.model.embed_tokens(words_BQ)
        image_BTD = connected_UTD[batch.image_B].to(words_BQD.dtype)
        return with_images(words_BQD, image_BTD, is_image_BQ)
