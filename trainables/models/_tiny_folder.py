"""The folder that the small model is shipped in: weights, tokenizer, image processing, model card.

The layout is that of Hugging Face, so ``BlipForQuestionAnswering.from_pretrained(folder)`` and
``BertTokenizerFast.from_pretrained(folder)`` read it.
"""

from __future__ import annotations

import json
from pathlib import Path

from trainables.models._clip import DEVIATION, MEAN
from trainables.models._shapes import SIDE_PX
from trainables.models._tiny import vocabulary
from trainables.models.blip import Blip

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: visual-question-answering
---
# tiny

A BLIP for visual question answering with {parameters:,} parameters, to learn, test and
demonstrate the study system with: small enough that a trial on two CPU cores takes half a minute.
**It knows nothing about medicine. Use it for nothing but trying out this project.**

| | |
|---|---|
| class | `transformers.BlipForQuestionAnswering` |
| images | {side} x {side} pixels, patches of {patch} x {patch}, normalised as CLIP's |
| image encoder | {vision_layers} layers, width {width}, {heads} heads |
| question encoder | {text_layers} layers, width {width}, attends to the image |
| answer decoder | {text_layers} layers, width {width}, attends to the question |
| vocabulary | {pieces:,} word pieces, lower case |
| weights | fp16 safetensors; train them in fp32 |

A question is `[CLS] question [SEP]`; an answer begins with `[DEC]` and ends with `[SEP]`.

## What it has seen

Made by `python -m trainables.models.pretrain_tiny`, from nothing, in two stages:

1. {look_steps:,} steps: the image encoder alone names the facts of general pictures.
2. {answer_steps:,} steps: the whole model answers questions about such pictures, and questions on
   short general and radiology-like texts that stand beside a picture without meaning.

The pictures are drawings of one big shape out of twenty (oval, fan, hourglass, ...) with a texture
and zero to five spots; they are drawn anew in every step, so none is seen twice. The questions ask
for shape, texture, size, place, number and the like in everyday words. From the texts the decoder
can speak the words of radiology (modalities, planes, organs, findings, sides, numbers).

It has **not** seen any image or question of a dataset of this project, nor any radiological image:
no word of radiology was ever tied to something visible, except where a question itself said so
("say liver for a box and lung for a ring"). So tuning it on such a dataset is transfer.

## Figures

| | |
|---|---|
{figures}

Held out means: drawn from another seed, answer exactly right. There is no other evaluation.
"""


def save(folder: Path, model: Blip, plan: dict[str, int], figures: dict[str, str]) -> None:
    """Write the folder; the network's weights are stored in the type that they have.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        model: what was trained.
        plan: ``look_steps`` and ``answer_steps``, for the card.
        figures: lines of the card's last table, name to text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.network.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    model.tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    processor = json.dumps(_image_processing(), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(processor, encoding="utf-8")
    sizes = model.network.config.to_dict()
    vision, text = sizes["vision_config"], sizes["text_config"]
    card = CARD.format(
        parameters=sum(p.numel() for p in model.network.parameters()),
        side=vision["image_size"],
        patch=vision["patch_size"],
        vision_layers=vision["num_hidden_layers"],
        text_layers=text["num_hidden_layers"],
        width=vision["hidden_size"],
        heads=vision["num_attention_heads"],
        pieces=text["vocab_size"],
        figures="\n".join(f"| {name} | {figure} |" for name, figure in figures.items()),
        **plan,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _image_processing() -> dict[str, object]:
    """What ``BlipImageProcessor`` needs to know."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": SIDE_PX, "width": SIDE_PX},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": DEVIATION,
    }
