"""InstructBLIP (Dai et al. 2023, arXiv 2305.06500) with a Vicuna as decoder.

It is a BLIP-2 (``blip_2.py``) whose Q-Former also reads the question, in tokens of its own, so what
the queries find in an image depends on what is asked. Weights are a folder in the layout of
``transformers.InstructBlipForConditionalGeneration``, with the Q-Former's tokenizer in
``qformer_tokenizer/``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn
from transformers import AutoTokenizer, InstructBlipForConditionalGeneration, PreTrainedModel

from trainables.data.common.wording import BARE, PLACE, Wording
from trainables.errors import BadInput
from trainables.model_contract import Batch, Row, Skeleton, Stage, run_stages
from trainables.models.blip_2 import Blip2
from trainables.models.common import weights_folder
from trainables.models.common.normalisation import CLIP, Normalisation

TRANSFORMERS = "5.9"
"""Oldest transformers with which models of this family are what the tests say."""
FOLLOWS_INSTRUCTIONS = True
"""Whether models of this family take an instruction in the prompt, such as how to answer."""
TOKENIZER = "qformer_tokenizer"
"""Folder of the Q-Former's tokenizer, within that of the model."""
SHIFT = 32
"""A number of a row holds a token of the decoder in this many bits and, above them, one more than a
token of the Q-Former, or 0 for none."""


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> InstructBlip:
    """Load a model folder, as ``blip_2.load`` does.

    Raises:
        BadInput: a file is missing or damaged; a weight is missing, unexpected or of another shape;
            the decoder is no Vicuna; or patches do not fill an image of that size.
    """
    return InstructBlip.load(path, image_size, precision)


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights.

    Raises:
        BadInput: a setting of the folder's is impossible, the decoder is no Vicuna, or patches do
            not fill an image of that size.
    """
    return InstructBlip.skeleton(source, image_size, precision)


class Tokenizers(NamedTuple):
    """Tokenizers of a model."""

    decoder: Any
    qformer: Any


class InstructBlip(Blip2):
    """An InstructBLIP base model with its tokenizers; implements
    ``trainables.model_contract.Model``."""

    called: ClassVar[str] = "InstructBLIP"
    kind: ClassVar[type[PreTrainedModel]] = InstructBlipForConditionalGeneration
    decoder: ClassVar[str] = "llama"
    question: ClassVar[str] = f"Question: {PLACE} Short answer:"
    """The paper's prompt for visual question answering. The Q-Former reads it, too."""

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        network: Any,
        tokenizer: Any,
        images: Normalisation = CLIP,
    ) -> None:
        both: tuple[Any, Any] = tokenizer or (None, None)
        decoder, self.qformer_tokenizer = both
        super().__init__(
            name=name, digest=digest, network=network, tokenizer=decoder, images=images
        )

    @classmethod
    def load(cls, path: Path, image_size: int | None, precision: str) -> Self:
        """Load a model folder, as the family's ``load``."""
        model = super().load(path, image_size, precision)
        words: nn.Module = model.network.qformer.get_submodule("qformer.embeddings.word_embeddings")
        weights_folder.check_tokens(path / TOKENIZER, model.qformer_tokenizer, words)
        return model

    @classmethod
    def tokenizer_of(cls, path: Path) -> Tokenizers:
        """Tokenizers of a folder.

        Raises:
            BadInput: there is none for the Q-Former.
        """
        own = path / TOKENIZER
        weights_folder.needs_tokenizer(own, "tokenizer.json", "vocab.txt")
        with weights_folder.reading(f"the tokenizer of {own} can't be read"):
            qformer = AutoTokenizer.from_pretrained(
                own, local_files_only=True, trust_remote_code=False
            )
        return Tokenizers(super().tokenizer_of(path), qformer)

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question within the prompt for both decoder and Q-Former, and the answer.

        The Q-Former's tokens end where the decoder's do.

        Raises:
            BadInput: there is a system message, or the prompt is too long for the Q-Former.
        """
        row = super().tokenize(question=question, answer=answer, image=image, wording=wording)
        text, _ = self.prompt.asked(question, wording)
        read: list[int] = self.qformer_tokenizer(text)["input_ids"]
        most = min(len(row.question), self.network.config.qformer_config.max_position_embeddings)
        if len(read) > most:
            raise BadInput(
                f"a question has {len(read)} tokens with its options and prompt, but the Q-Former "
                f"of {self.name} reads {most} of it at most: {question[:80]!r}"
            )
        words = (0,) * (len(row.question) - len(read)) + tuple(token + 1 for token in read)
        both = (token | word << SHIFT for token, word in zip(row.question, words, strict=True))
        return replace(row, question=tuple(both))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages before the decoder: the image is encoded, queried for each question, and the
        queries' output mapped to the decoder's width."""
        return (
            Stage(slots=("vision",), per="image", run=self._encode),
            Stage(slots=("qformer",), per="question", run=self._query),
            Stage(slots=("connector",), per="question", run=self._connect),
        )

    def words(self, question_BQ: Tensor) -> Tensor:
        """Tokens of the decoder among those of questions; shape (B, Q)."""
        return question_BQ & ((1 << SHIFT) - 1)

    def _query(self, network: nn.Module, batch: Batch, image_UTD: Tensor | None) -> Tensor:
        """Query the images for each question; shape (B, Q, D), of which N rows are in use."""
        assert image_UTD is not None
        parts: Any = network
        words_BQ = (batch.question_BQ >> SHIFT) - 1
        read_BQ = (words_BQ >= 0) & batch.question_mask_BQ.bool()
        found_BND = parts.qformer(image_UTD[batch.image_B], words_BQ.clamp(min=0), read_BQ)
        return self._padded(found_BND, batch)

    def _connect(self, network: nn.Module, batch: Batch, found_UND: Tensor | None) -> Tensor:
        """Map what the queries found to the width of the decoder; shape (B, Q, D), of which N rows
        are in use."""
        assert found_UND is not None
        return self._padded(super()._connect(network, batch, found_UND[:, : self.queries]), batch)

    def _connected(self, network: nn.Module, batch: Batch) -> Tensor:
        """What the queries found for each question, in the decoder's width; shape (B, N, D)."""
        return run_stages(self, network, batch)[:, : self.queries]

    def _padded(self, found_BND: Tensor, batch: Batch) -> Tensor:
        """The output of a stage with as many rows as a question has tokens, of which there is one
        for each query at least."""
        more = batch.question_BQ.shape[1] - self.queries
        return nn.functional.pad(found_BND, (0, 0, 0, more))
