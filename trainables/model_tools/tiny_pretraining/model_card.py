"""Writes the model card of the small model that ships with the project."""

from __future__ import annotations

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

Made by `python -m trainables.model_tools.pretrain_tiny`, from nothing, in two stages:

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


def card(model: Blip, plan: dict[str, int], figures: dict[str, str]) -> str:
    """Text of the model card.

    Args:
        model: the model that was trained.
        plan: values of ``look_steps`` and ``answer_steps``.
        figures: rows of the last table, name to text.
    """
    sizes = model.network.config.to_dict()
    vision, text = sizes["vision_config"], sizes["text_config"]
    return CARD.format(
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
