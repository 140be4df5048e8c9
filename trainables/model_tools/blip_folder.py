"""Writes a BLIP model folder: weights, tokenizer, image processing and model card.

The layout is that of Hugging Face, so ``BlipForQuestionAnswering.from_pretrained(folder)`` and
``BertTokenizer.from_pretrained(folder)`` read it.
"""

from __future__ import annotations

import json
from pathlib import Path

from trainables.errors import BadInput
from trainables.models.blip import Blip
from trainables.models.common.clip import DEVIATION, MEAN


def check_writable(option: str, folder: Path) -> None:
    """Make a folder and check that it can be written to, before time is spent on its content.

    Raises:
        BadInput: the folder can't be written to; the message names the ``option`` that gave it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").touch()
    except OSError as error:
        raise BadInput(f"{option} {folder} can't be written to ({error.strerror})") from error


def write(folder: Path, model: Blip, card: str) -> None:
    """Write all files of a model. Weights keep their type.

    Args:
        folder: the folder to write to; files of the same names are replaced.
        model: the model to store.
        card: the text of the model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.network.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    model.tokenizer.save_pretrained(folder)
    pieces = sorted(model.tokenizer.get_vocab().items(), key=lambda piece: piece[1])
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p, _ in pieces), encoding="utf-8")
    processor = json.dumps(_image_processing(model.image_size), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(processor, encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _image_processing(side_px: int) -> dict[str, object]:
    """Settings of ``BlipImageProcessor`` for images of ``side_px`` pixels a side."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side_px, "width": side_px},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": DEVIATION,
    }
