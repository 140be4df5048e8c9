"""BLIP-2 (Li et al. 2023, arXiv 2301.12597) with a decoder of the OPT family.

A ViT encodes the image (slot ``vision``). In the Q-Former, 32 query tokens attend to the image; the
slot ``qformer`` has both. A linear layer maps what they found to the decoder's width
(``connector``), and an OPT reads it ahead of the question and writes the answer (``decoder``).
Weights are a folder in the layout of ``transformers.Blip2ForConditionalGeneration``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, PreTrainedModel

from trainables.cache import hub
from trainables.data.common.wording import BARE, PLACE, Wording
from trainables.errors import BadInput
from trainables.model_contract import (
    ANSWER_TOKENS,
    Batch,
    Row,
    Skeleton,
    Stage,
    run_stages,
)
from trainables.models.common import clip, normalisation, weights_folder
from trainables.models.common.after_prompt import generate_after, losses_after, with_images
from trainables.models.common.blip2_network import ROLES, Parts
from trainables.models.common.collate import collate
from trainables.models.common.normalisation import CLIP, Normalisation
from trainables.models.common.prompt import AROUND_TOKENS, QUESTION_TOKENS, Prompt

TRANSFORMERS = "5.9"
"""Oldest transformers with which models of this family are what the tests say."""
BEAMS = 5  # of the papers of BLIP-2 and InstructBLIP
LENGTH_PENALTY = -1.0  # of the papers, for short answers; it matters with several beams only


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> Blip2:
    """Load a model folder. For another ``image_size``, position embeddings are interpolated.

    Weights are held in bf16 if trials compute in bf16 and the weights were published in 16 bits.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape;
            the decoder is no OPT; or patches do not fill an image of that size.
    """
    return Blip2.load(path, image_size, precision)


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights.

    Raises:
        BadInput: a setting of the folder's is impossible, the decoder is no OPT, or patches do not
            fill an image of that size.
    """
    return Blip2.skeleton(source, image_size, precision)


class QuestionPrompt(Prompt):
    """The prompt of a model without a chat template. It is ``question``, with ``PLACE`` in it."""

    def __init__(self, *, name: str, tokenizer: Any, image_word: str, question: str) -> None:
        self.tokenizer, self.question = tokenizer, question
        self.begin(name, [image_word])

    def render(self, system: str) -> tuple[str, None]:
        """The prompt; a blank is between it and an answer.

        Raises:
            BadInput: there is a system message.
        """
        Wording(system=system).refuse_system(self.name)
        return self.question, None


class Blip2:
    """A BLIP-2 base model with its tokenizer; implements ``trainables.model_contract.Model``."""

    slots: Mapping[str, str] = MappingProxyType(
        {
            "vision": "vision_model",
            "qformer": "qformer",
            "connector": "connector",
            "decoder": "language_model",
        }
    )
    parts: Mapping[type[nn.Module], Mapping[str, str]] = MappingProxyType(ROLES)
    called: ClassVar[str] = "BLIP-2"
    kind: ClassVar[type[PreTrainedModel]] = Blip2ForConditionalGeneration
    decoder: ClassVar[str] = "opt"
    """``model_type`` of the decoders that are known."""
    question: ClassVar[str] = f"Question: {PLACE} Answer:"
    """The prompt of the paper."""
    beams = BEAMS

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
        self.image_size: int = config.vision_config.image_size
        self.queries: int = config.num_query_tokens
        text = config.text_config
        self.positions: int | None = (
            text.max_position_embeddings if text.model_type == "opt" else None
        )
        """Number of tokens of a question and its answer for which an OPT has positions; None for a
        Vicuna, which computes them."""
        self.image: int = config.image_token_index
        """Token that stands for a query in a prompt. It is never looked up in the embeddings."""
        if tokenizer is None:
            return  # a skeleton reads no text
        end = config.text_config.eos_token_id  # BLIP-2's with an OPT is the end of a line
        end = end[0] if isinstance(end, list) else end
        self.end: int = tokenizer.eos_token_id if end is None else end
        self.pad: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        word = tokenizer.convert_ids_to_tokens(self.image)
        self.prompt = QuestionPrompt(
            name=name, tokenizer=tokenizer, image_word=word or "<image>", question=self.question
        )

    @classmethod
    def load(cls, path: Path, image_size: int | None, precision: str) -> Self:
        """Load a model folder, as the family's ``load``."""
        weights_folder.needs_tokenizer(path, "tokenizer.json", "vocab.json", "tokenizer.model")
        config = cls._config(path, hub.name_of(path))
        dtype = _held(config, precision)
        network = weights_folder.read(cls.kind, path, called=cls.called, dtype=dtype).to(dtype)
        if image_size is not None:
            embeddings = network.vision_model.embeddings
            positions_1TD = clip.positions(embeddings, image_size).to(dtype)
            embeddings.position_embedding = nn.Parameter(positions_1TD, requires_grad=False)
            embeddings.image_size = network.config.vision_config.image_size = image_size
        images = normalisation.of_folder(path)
        model = cls(
            name=hub.name_of(path),
            digest=weights_folder.digest(path, image_size, images.off_default),
            network=Parts(network).eval().requires_grad_(False),
            tokenizer=cls.tokenizer_of(path),
            images=images,
        )
        embeddings = network.language_model.get_input_embeddings()
        weights_folder.check_tokens(
            path, model.tokenizer, embeddings, {"eos": model.end}, replaced=(model.image,)
        )
        return model

    @classmethod
    def skeleton(cls, source: Path, image_size: int | None, precision: str) -> Skeleton:
        """The structure of a folder's model or of a preset, as the family's ``skeleton``."""
        name = hub.name_of(source)
        config = cls._config(source, name)
        with weights_folder.configuring(source, cls.called), torch.device("meta"):
            if image_size is not None:
                clip.check_size(image_size, config.vision_config.patch_size)
                config.vision_config.image_size = image_size
            network = Parts(cls.kind(config)).eval().requires_grad_(False)
        network.to(_held(config, precision))
        model = cls(name=name, digest="", network=network, tokenizer=None)
        return Skeleton.from_model(
            model, question_tokens=model.queries + AROUND_TOKENS + QUESTION_TOKENS
        )

    @classmethod
    def _config(cls, source: Path, name: str) -> Any:
        """Configuration of a folder or of a preset's file.

        Raises:
            BadInput: it is damaged, its decoder is not known, or it names no image token.
        """
        kind: Any = cls.kind.config_class
        with weights_folder.configuring(source, cls.called):
            config = kind.from_pretrained(source, local_files_only=True)
        decoder = config.text_config.model_type
        if config.is_encoder_decoder:
            raise BadInput(
                f"{name} has a {decoder} as decoder, which is an encoder and a decoder whose "
                f"layers pass on position biases, so methods can't add tokens to it; {cls.called} "
                f"is known with: {cls.decoder}"
            )
        if decoder != cls.decoder:
            raise BadInput(
                f"the decoder of {name} is of type {decoder}; {cls.called} is known with: "
                f"{cls.decoder}"
            )
        if config.image_token_index is None:
            raise BadInput(
                f"the config.json of {name} has no image_token_index, as in folders from before "
                "transformers 4.47; get the model again"
            )
        if config.image_token_index < 0:
            raise BadInput(
                f"image_token_index in the config.json of {name} must be the number of a token, "
                f"not {config.image_token_index}"
            )
        return config

    @classmethod
    def tokenizer_of(cls, path: Path) -> Any:
        """Tokenizer of a folder."""
        with weights_folder.reading(f"the tokenizer of {path} can't be read"):
            return AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question within the prompt, and the answer as it goes on from there. A token
        for each query comes first, as the processor has it.

        Raises:
            BadInput: there is a system message, or the texts are too long for an OPT.
        """
        asked, said = self.prompt.around(question, answer, wording)
        question_tokens = (*[self.image] * self.queries, *asked)
        most = len(question_tokens) if self.positions is None else self.positions - ANSWER_TOKENS
        if len(question_tokens) > most:
            raise BadInput(
                f"a question has {len(question_tokens)} tokens with its image, options and prompt, "
                f"but {self.name} reads {most} beside an answer at most: {question[:80]!r}"
            )
        return Row(image=image, question=question_tokens, answer=(*said, self.end))

    def collate(self, rows: Sequence[Row], images_NSSC: NDArray[np.uint8] | None) -> Batch:
        """Pad prompts on the left and answers on the right, so that the two can be joined.

        Repeated images are put in once.
        """
        return collate(rows, images_NSSC, pad=self.pad, question_padding="left", pixels=self.pixels)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the decoder: the image is encoded, queried, and the queries' output
        mapped to the decoder's width."""
        return (
            Stage(slots=("vision",), per="image", run=self._encode),
            Stage(slots=("qformer",), per="image", run=self._query),
            Stage(slots=("connector",), per="image", run=self._connect),
        )

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
            **({"length_penalty": LENGTH_PENALTY} if beams > 1 else {}),
        )
        said = self.tokenizer.batch_decode(tokens_BA, skip_special_tokens=True)
        return [answer.strip() for answer in said]

    def to_transformers(self, network: nn.Module) -> PreTrainedModel:
        """Rebuild transformers' network."""
        assert isinstance(network, Parts)
        return network.whole()

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Divide transformers' network into its parts."""
        return Parts(network).eval()

    def words(self, question_BQ: Tensor) -> Tensor:
        """Tokens of the decoder among those of questions; shape (B, Q)."""
        return question_BQ

    def _encode(self, network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        """Encode the images; shape (U, T, D)."""
        parts: Any = network
        image_UTD: Tensor = parts.vision_model(batch.pixels_UCSS).last_hidden_state
        return image_UTD

    def _query(self, network: nn.Module, _: Batch, image_UTD: Tensor | None) -> Tensor:
        """Query the images; shape (U, N, D)."""
        parts: Any = network
        found_UND: Tensor = parts.qformer(image_UTD)
        return found_UND

    def _connect(self, network: nn.Module, _: Batch, found_UND: Tensor | None) -> Tensor:
        """Map what the queries found to the width of the decoder; shape (U, N, D)."""
        parts: Any = network
        connected_UND: Tensor = parts.connector(found_UND)
        return connected_UND

    def _connected(self, network: nn.Module, batch: Batch) -> Tensor:
        """What the queries found for each question, in the decoder's width; shape (B, N, D)."""
        return run_stages(self, network, batch)[batch.image_B]

    def _prompt(self, network: nn.Module, batch: Batch) -> Tensor:
        """Embeddings of the prompt's tokens, those of the queries among them; shape (B, Q, D)."""
        decoder: Any = network.language_model
        connected_BND = self._connected(network, batch)
        tokens_BQ = self.words(batch.question_BQ)
        is_image_BQ = tokens_BQ == self.image
        words_BQ = tokens_BQ.masked_fill(is_image_BQ, 0)
        words_BQD: Tensor = decoder.get_input_embeddings()(words_BQ)
        return with_images(words_BQD, connected_BND.to(words_BQD.dtype), is_image_BQ)


def _held(config: Any, precision: str) -> torch.dtype:
    """The type in which weights are held in memory: matrix products under bf16 would round
    weights of 16 bits anyway."""
    halves = config.dtype in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if precision == "bf16" and halves else torch.float32
