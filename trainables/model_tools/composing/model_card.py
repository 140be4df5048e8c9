"""Writes the model card of a composed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.model_tools.composing.align import BATCH, Alignment
from trainables.model_tools.composing.towers import Parts
from trainables.models.blip import Blip

if TYPE_CHECKING:
    from trainables.model_tools.composing.compose_config import ComposeConfig

CARD = """\
---
library_name: transformers
pipeline_tag: visual-question-answering
---
# {name}

A BLIP for visual question answering with {parameters:,} parameters, composed of pretrained parts by
`{command}`.
Its license follows from those of the parts.

| | |
|---|---|
| class | `transformers.BlipForQuestionAnswering` |
| images | {side} x {side} pixels, patches of {patch} x {patch}, normalised as CLIP's |
| image encoder | {vision_layers} layers, width {width}, from `{vision}` (DINOv2) |
| question encoder | {text_layers} layers, width {width}, from `{text}` (BERT) |
| answer decoder | the same, with a causal mask |
| vocabulary | {pieces:,} of its {all_pieces:,} word pieces, and [DEC] |

A question is `[CLS] question [SEP]`; an answer begins with `[DEC]` and ends with `[SEP]`.

The image encoder gives the same features as the original. Cross-attention and the decoder's last
layers are new.

## What it was aligned on

{aligned}
"""


def card(config: ComposeConfig, parts: Parts, model: Blip, aligned: Alignment | None) -> str:
    """Text of the model card; ``aligned`` is None if the model is not aligned."""
    sizes = model.network.config.to_dict()
    vision, text = sizes["vision_config"], sizes["text_config"]
    return CARD.format(
        name=model.name,
        command="python -m trainables.model_tools.compose",
        parameters=sum(p.numel() for p in model.network.parameters()),
        side=vision["image_size"],
        patch=vision["patch_size"],
        vision=config.vision,
        text=config.text,
        vision_layers=vision["num_hidden_layers"],
        text_layers=text["num_hidden_layers"],
        width=vision["hidden_size"],
        pieces=text["vocab_size"] - 1,
        all_pieces=len(parts.tokenizer),
        aligned=_aligned(config, aligned),
    )


def _aligned(config: ComposeConfig, aligned: Alignment | None) -> str:
    """Text of the section about the alignment."""
    if aligned is None:
        return "Nothing: its new parts are random. It answers nothing sensible before it is tuned."
    lines = {
        "training split of": f"{config.data} ({config.split}), digest {aligned.digest}",
        "trained": "question encoder and answer decoder; the image encoder was frozen",
        "epochs": f"{config.epochs}, {BATCH} questions a step, peak learning rate {config.lr:g}",
        "seed": str(config.seed),
        "training loss": ", ".join(f"{loss:.3f}" for loss in aligned.losses),
        **aligned.figures(),
    }
    table = "\n".join(f"| {name} | {figure} |" for name, figure in lines.items())
    return (
        "**It has seen that training split: tuned on it, it does not meet its questions for the "
        "first time.** Nothing was trained on or chosen by another split.\n\n"
        f"| | |\n|---|---|\n{table}"
    )
