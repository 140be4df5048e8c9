"""my_family: a ViT whose tokens stand before the question in a Llama.

The image encoder is the family's own, the decoder one of transformers. A family whose network
transformers has needs no network here, as ``trainables.models.blip``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.llama import modeling_llama as llama

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

QUESTION_TOKENS = 32


class MyConfig(PreTrainedConfig):
    """The configuration, whose ``model_type`` is the name of this file."""

    model_type = "my_family"

    def __init__(self, image_size: int = 32, text: Mapping[str, Any] | None = None, **rest: Any):
        self.image_size, self.text = image_size, dict(text or {})
        super().__init__(**rest)


class Attention(nn.Module):
    """Self-attention of image tokens, by two heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_UTD: Tensor) -> Tensor:
        heads = self.qkv(x_UTD).unflatten(-1, (3, 2, -1)).transpose(1, 3)
        mixed_UhTd = nn.functional.scaled_dot_product_attention(*heads.unbind(2))
        out_UTD: Tensor = self.out(mixed_UhTd.transpose(1, 2).flatten(2))
        return out_UTD


class Block(nn.Module):
    """A layer of the image encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x_UTD: Tensor) -> Tensor:
        x_UTD = x_UTD + self.attention(self.norm(x_UTD))
        out_UTD: Tensor = x_UTD + self.down(nn.functional.gelu(self.up(self.norm_2(x_UTD))))
        return out_UTD


class Encoder(nn.Module):
    """The image encoder: patches of 16 pixels, and two layers."""

    def __init__(self, width: int, image_size: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.place = nn.Parameter(torch.zeros((image_size // 16) ** 2, width))
        self.blocks = nn.Sequential(Block(width), Block(width))

    def forward(self, pixels_UCSS: Tensor) -> Tensor:
        patches_UTD = self.patch(pixels_UCSS).flatten(2).transpose(1, 2)
        out_UTD: Tensor = self.blocks(patches_UTD + self.place)
        return out_UTD


class MyNetwork(PreTrainedModel):
    """The network. As a model of transformers, it is saved and read like one."""

    config_class = MyConfig

    def __init__(self, config: MyConfig) -> None:
        super().__init__(config)
        text = LlamaConfig(**config.text)
        self.encoder = Encoder(text.hidden_size, config.image_size)
        self.decoder = LlamaForCausalLM(text)
        self.post_init()


class MyFamily:
    """A base model with its tokenizer; implements ``trainables.model_contract.Model``."""

    slots: Mapping[str, str] = MappingProxyType({"vision": "encoder", "decoder": "decoder"})
    parts: Mapping[type[nn.Module], Mapping[str, str]] = MappingProxyType(
        {
            Encoder: {"patch": "patch"},
            Block: {"attention": "self_attention", "up": "ffn_in", "down": "ffn_out"},
            Attention: {"qkv": "qkv", "out": "attention_output"},
            llama.LlamaDecoderLayer: {"self_attn": "self_attention"},
            llama.LlamaAttention: {
                "q_proj": "query",
                "k_proj": "key",
                "v_proj": "value",
                "o_proj": "attention_output",
            },
            llama.LlamaMLP: {"gate_proj": "ffn_in", "up_proj": "ffn_in", "down_proj": "ffn_out"},
        }
    )
    beams = 1

    def __init__(self, *, name: str, digest: str, network: MyNetwork, tokenizer: Any) -> None:
        self.name, self.digest, self.network, self.tokenizer = name, digest, network, tokenizer
        config: Any = network.config
        self.image_size: int = config.image_size

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage before the decoder: the image is encoded."""
        return (Stage(slots=("vision",), per="image", run=self._encode),)

    def tokenize(self, *, question: str, answer: str, image: int, wording: Wording = BARE) -> Row:
        """Tokenise a question, with the texts around it, and the answer that follows it."""
        wording.refuse_system(self.name)
        texts = [wording.before, question, wording.after, answer]
        before, words, after, said = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        begin, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        asked = (begin, *before, *words[: QUESTION_TOKENS - 2], *after, end)
        return Row(image=image, question=asked, answer=(*said, end))

    def collate(self, rows: Sequence[Row], images_NSSC: NDArray[np.uint8] | None) -> Batch:
        """Pad questions on the left and answers on the right, so that the two can be joined."""
        return collate(rows, images_NSSC, pad=self.tokenizer.pad_token_id, question_padding="left")

    def losses(
        self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0, summed: bool = False
    ) -> Tensor:
        """Mean, or sum, of the negative log-likelihoods of an answer's tokens and its end; (B,)."""
        prompt_BTD, mask_BT = self._prompt(network, batch)
        decoder: Any = network.decoder
        answer_BAD = decoder.model.embed_tokens(batch.answer_BA)
        mask_BT = torch.cat((mask_BT, batch.answer_mask_BA), dim=1)
        logits_BTV = decoder(
            inputs_embeds=torch.cat((prompt_BTD, answer_BAD), dim=1),
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),  # so that padding has no place
            use_cache=False,
        ).logits
        logits_BAV = logits_BTV[:, prompt_BTD.shape[1] - 1 : -1]
        return answer_losses(logits_BAV, batch.answer_BA, batch.answer_mask_BA, smoothing, summed)

    @torch.no_grad()
    def answers(
        self, network: nn.Module, batch: Batch, *, tokens: int = ANSWER_TOKENS, beams: int = 1
    ) -> list[str]:
        """Generate answers by greedy or beam search."""
        prompt_BTD, mask_BT = self._prompt(network, batch)
        decoder: Any = network.decoder
        tokens_BA = decoder.generate(
            inputs_embeds=prompt_BTD,
            attention_mask=mask_BT,
            eos_token_id=self.tokenizer.sep_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            max_new_tokens=tokens,
            num_beams=beams,
            do_sample=False,
        )
        said: list[str] = self.tokenizer.batch_decode(tokens_BA, skip_special_tokens=True)
        return said

    def to_transformers(self, network: nn.Module) -> None:
        """None, since transformers does not have this network."""

    def from_transformers(self, network: PreTrainedModel) -> nn.Module:
        """Return the network unchanged."""
        return network

    def _encode(self, network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        """Encode the images; shape (U, T, D)."""
        parts: Any = network
        image_UTD: Tensor = parts.encoder(batch.pixels_UCSS)
        return image_UTD

    def _prompt(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Image and question as the decoder reads them, of shape (B, T, D), and their mask."""
        parts: Any = network
        image_BTD = run_stages(self, network, batch)[batch.image_B]
        words_BQD = parts.decoder.model.embed_tokens(batch.question_BQ)
        all_BT = batch.question_mask_BQ.new_ones(image_BTD.shape[:2])
        return (
            torch.cat((image_BTD, words_BQD), dim=1),
            torch.cat((all_BT, batch.question_mask_BQ), dim=1),
        )


def load(path: Path, image_size: int | None = None, precision: str = "fp32") -> MyFamily:
    """Load a model folder.

    Raises:
        BadInput: an image size was given, or a file or a weight is missing or damaged.
    """
    if image_size is not None:
        raise BadInput("my_family takes images of its folder's size only; leave out --image-size")
    weights_folder.needs_tokenizer(path, "tokenizer.json", "vocab.txt")
    return MyFamily(
        name=hub.name_of(path),
        digest=weights_folder.digest(path, image_size),
        network=weights_folder.read(MyNetwork, path, called="my_family", dtype=torch.float32),
        tokenizer=BertTokenizer.from_pretrained(path, local_files_only=True),
    )


def skeleton(source: Path, image_size: int | None = None, precision: str = "fp32") -> Skeleton:
    """The structure of a folder's model or of a preset, without weights."""
    config = MyConfig.from_pretrained(source, local_files_only=True)
    with torch.device("meta"):
        network = MyNetwork(config).eval().requires_grad_(False)
    model = MyFamily(name=hub.name_of(source), digest="", network=network, tokenizer=None)
    return Skeleton.from_model(
        model, question_tokens=QUESTION_TOKENS + (model.image_size // 16) ** 2
    )


def small(words: Sequence[str]) -> MyFamily:
    """A random model that knows ``words``, for the contract tests.

    Its weights are large enough for an answer to depend on the image.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    return MyFamily(
        name="small",
        digest="0" * 64,
        network=MyNetwork(MyConfig(text=text)).eval().requires_grad_(False),
        tokenizer=BertTokenizer(vocab=vocabulary),
    )
