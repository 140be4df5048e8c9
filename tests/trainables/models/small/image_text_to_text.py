"""A small random model of one of the classes of ``AutoModelForImageTextToText``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.trainables import made_image_text
from trainables.models.image_text_to_text import ImageTextToText, load


def small(words: Sequence[str], kind: str = "gemma3") -> ImageTextToText:
    """A model of the class ``kind``, read from a folder like any other."""
    with TemporaryDirectory() as folder:
        written = made_image_text.write(Path(folder) / kind, kind, words)
        return load(written, image_size=made_image_text.SIZE)
