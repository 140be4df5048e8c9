"""BLIP for visual question answering (Li et al. 2022, arXiv 2201.12086), the architecture of MISS.

A ViT encodes the image (slot ``vision``). A BERT-like encoder reads the question and attends to the
image (``fusion``). A BERT-like decoder attends to the question and writes the answer (``decoder``).
Weights are a folder in the layout of ``transformers.BlipForQuestionAnswering``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, PreTrainedModel
from transformers.models.blip import modeling_blip as vision
from transformers.models.blip import modeling_blip_text as text

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
from trainables.models.common import clip, normalisation, weights_folder
from trainables.models.common.attention import (
    ImageAttention,
    TextAttention,
    fuse,
    hide_later,
    hide_padding,
)
from trainables.models.common.collate import collate
from trainables.models.common.normalisation import CLIP, Normalisation

TRANSFORMERS = "5.9"
"""Oldest transformers with which models of this family are what the tests say."""
QUESTION_TOKENS = 35  # most tokens of a question, as in the training of MISS
BEAMS = 3  # beams of MISS and BLIP; a folder's generation_config.json may give another number


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> Blip:
    """Load a model folder. For another ``image_size``, position embeddings are interpolated.

    Weights are held in fp32 whatever the ``precision``, since a BLIP is small.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape;
            or patches do not fill an image of that size.
    """
    weights_folder.needs_tokenizer(path, "tokenizer.json", "vocab.txt")
    network = weights_folder.read(
        BlipForQuestionAnswering, path, called="BLIP", dtype=torch.float32
    )
    if image_size is not None:
        embeddings = network.vision_model.embeddings
        positions_1TD = clip.positions(embeddings, image_size)
        embeddings.position_embedding = nn.Parameter(positions_1TD, requires_grad=False)
        embeddings.num_positions = positions_1TD.shape[1]
        embeddings.image_size = network.config.vision_config.image_size = image_size
    with weights_folder.reading(f"the tokenizer of {path} can't be read"):
        tokenizer = BertTokenizer.from_pretrained(path, local_files_only=True)
    images = normalisation.of_folder(path)
    model = Blip(
        name=hub.name_of(path),
        digest=weights_folder.digest(path, image_size, images.off_default),
        network=network,
        tokenizer=tokenizer,
        images=images,
    )
    special = {"pad": model.pad, "bos": model.begin, "sep": model.end}
    for part in (network.text_encoder, network.text_decoder):
        weights_folder.check_tokens(path, tokenizer, part.get_input_embeddings(), special)
    return model


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights.

    Raises:
        BadInput: a setting is impossible, or patches do not fill an image of that
            size.
    """
    with weights_folder.configuring(source, "BLIP"), torch.device("meta"):
        config = BlipConfig.from_pretrained(source, local_files_only=True)
        if image_size is not None:
            vision_config: Any = config.vision_config
            clip.check_size(image_size, vision_config.patch_size)
            vision_config.image_size = image_size
        network = BlipForQuestionAnswering(config)
    network.eval().requires_grad_(False)
    model = Blip(name=hub.name_of(source), digest="", network=network, tokenizer=None)
    return Skeleton.from_model(model, question_tokens=QUESTION_TOKENS, longest_answer=model.longest)


def as_written(text: str) -> str:
    """Remove the blanks that BERT's tokens leave within words and numbers and in Chinese text.

    An answer that is right token for token is then right as text too.

    >>> as_written("patient ' s 3. 5 cm x - ray, 5 %")
    "patient's 3.5 cm x-ray, 5%"
    """
    text = re.sub(r"(?<=\w) ([-'/:]) (?=\w)", r"\1", text)
    text = re.sub(r"(?<=\d) ?([.,]) (?=\d)", r"\1", text)
    text = re.sub(r"(?<=\d) (?=%)", "", text)
    return re.sub(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])", "", text)


class Blip:
    """A BLIP base model with its tokenizer; implements ``trainables.model_contract.Model``."""

    slots: Mapping[str, str] = MappingProxyType(
        {"vision": "vision_model", "fusion": "text_encoder", "decoder": "text_decoder"}
    )
    parts: Mapping[type[nn.Module], Mapping[str, str]] = MappingProxyType(
        {
            vision.BlipVisionEmbeddings: {"patch_embedding": "patch"},
            vision.BlipEncoderLayer: {"self_attn": "self_attention"},
            ImageAttention: {"qkv": "qkv", "projection": "attention_output"},
            vision.BlipMLP: {"fc1": "ffn_in", "fc2": "ffn_out"},
            text.BlipTextLayer: {"attention.self": "self_attention"},
            TextAttention: {"query": "query", "key": "key", "value": "value"},
            text.BlipTextSelfOutput: {"dense": "attention_output"},
            text.BlipTextIntermediate: {"dense": "ffn_in"},
            text.BlipTextOutput: {"dense": "ffn_out"},
        }
    )

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        network: BlipForQuestionAnswering,
        tokenizer: Any,
        images: Normalisation = CLIP,
    ) -> None:
        self.name, self.digest, self.network, self.tokenizer = name, digest, network, tokenizer
        self.pixels = normalisation.pixels_of(images)
        fuse(network)
        config: Any = network.config
        self.image_size: int = config.vision_config.image_size
        self.beams: int = network.generation_config.num_beams or BEAMS
        config = config.text_config
        self.longest: int = config.max_position_embeddings
        """Number of tokens of a question, or of an answer, for which there are positions."""
        # What the configuration leaves out, the tokenizer may have.
        self.pad: int
        self.begin: int
        self.end: int
        self.pad, self.begin, self.end = (  # type: ignore[assignment]  # load checks them
            getattr(config if getattr(config, name) is not None else tokenizer, name, None)
            for name in ("pad_token_id", "bos_token_id", "sep_token_id")
        )

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question between [CLS] and [SEP], and an answer between [DEC] and [SEP].

        Raises:
            BadInput: there is a system message, or there are no positions for so many tokens.
        """
        wording.refuse_system(self.name)
        asked = [
            self.tokenizer.cls_token_id,
            *self._words(wording.before),
            *self._words(question)[: QUESTION_TOKENS - 2],
            *self._words(wording.after),
            self.tokenizer.sep_token_id,
        ]
        if len(asked) > self.longest:
            raise BadInput(
                f"a question has {len(asked)} tokens with its options and prompt, but {self.name} "
                f"reads {self.longest} at most: {question[:80]!r}"
            )
        said = self._words(answer)[: self.longest - 2]
        return Row(image=image, question=tuple(asked), answer=(self.begin, *said, self.end))

    def _words(self, text: str) -> list[int]:
        """Tokens of a text, without special ones."""
        if not text:  # mostly
            return []
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the decoder: the image is encoded, then the question attends to it."""
        return (
            Stage(slots=("vision",), per="image", run=self._encode),
            Stage(slots=("fusion",), per="question", run=self._fuse),
        )

    def collate(self, rows: Sequence[Row], images_NSSC: NDArray[np.uint8] | None) -> Batch:
        """Pad rows to the batch's longest question and answer; repeated images are put in once."""
        return collate(
            rows, images_NSSC, pad=self.pad, question_padding="right", pixels=self.pixels
        )

    def losses(
        self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0, summed: bool = False
    ) -> Tensor:
        """Mean, or sum, of the negative log-likelihoods of an answer's tokens and its end; (B,)."""
        fused_BQD = run_stages(self, network, batch)
        parts: Any = network
        logits_BAV = parts.text_decoder(
            input_ids=batch.answer_BA,
            attention_mask=hide_later(batch.answer_BA),  # padding is on the right, and not scored
            encoder_hidden_states=fused_BQD,
            encoder_attention_mask=hide_padding(batch.question_mask_BQ),
            use_cache=False,
        ).logits
        return answer_losses(
            logits_BAV[:, :-1],
            batch.answer_BA[:, 1:],
            batch.answer_mask_BA[:, 1:],
            smoothing,
            summed,
        )

    @torch.no_grad()
    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """Generate answers by greedy or beam search, with a key-value cache.

        ``BlipForQuestionAnswering.generate`` lets the decoder attend to padding, so that an answer
        would depend on the longest question of its batch. The parts are therefore called here.
        """
        fused_BQD = run_stages(self, network, batch)
        begin_B1 = torch.full((len(fused_BQD), 1), self.begin, device=fused_BQD.device)
        parts: Any = network
        tokens_BA = parts.text_decoder.generate(
            input_ids=begin_B1,
            encoder_hidden_states=fused_BQD,
            encoder_attention_mask=batch.question_mask_BQ,
            eos_token_id=self.end,
            pad_token_id=self.pad,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
        )
        texts = self.tokenizer.batch_decode(tokens_BA, skip_special_tokens=True)
        return [as_written(text) for text in texts]

    def to_transformers(self, network: nn.Module) -> PreTrainedModel:
        """Return the network unchanged, since it is transformers' own."""
        assert isinstance(network, PreTrainedModel)
        return network

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Return the network unchanged."""
        return network

    def _encode(self, network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        """Encode the images; shape (U, T, D)."""
        parts: Any = network
        image_UTD: Tensor = parts.vision_model(batch.pixels_UCSS).last_hidden_state
        return image_UTD

    def _fuse(self, network: nn.Module, batch: Batch, image_UTD: Tensor | None) -> Tensor:
        """Encode the questions, which attend to their images; shape (B, Q, D)."""
        assert image_UTD is not None
        parts: Any = network
        fused = parts.text_encoder(
            input_ids=batch.question_BQ,
            attention_mask=hide_padding(batch.question_mask_BQ),
            encoder_hidden_states=image_UTD[batch.image_B],
        )
        fused_BQD: Tensor = fused.last_hidden_state
        return fused_BQD
