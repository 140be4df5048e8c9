"""Identity of a loaded model: a digest of all that its answers depend on besides the question.

``Model.digest``, version 1, is of the weights and the configuration. Version 2, made here, is also
of the tokenizer, the prompt and the image processing: a chat template that changes between two
sessions of a study makes other numbers of the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainables.model_contract import Model

VERSION_2 = "2:"
"""Beginning of every digest of version 2. Those of version 1 are bare sha256."""
FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
    "*processor_config.json",
)
"""Files of a model's folder that say how texts and images are processed."""
QUESTION, ANSWER = "Is there a fracture of the 3rd rib?", "no"
"""A question and an answer whose tokens show the prompt and how answers follow it."""


def digest(model: Model, folder: Path) -> str:
    """Digest, version 2, of a model that was loaded from ``folder``.

    It covers ``Model.digest``; the files of tokenizer, chat template and processors; the tokens of
    a question within its prompt, as rendered; and the pixels that black and white images become.
    """
    hashed = hashlib.sha256(model.digest.encode())
    for name, content in _files(folder):
        hashed.update(f"\n{name} {hashlib.sha256(content).hexdigest()}".encode())
    row = model.tokenize(question=QUESTION, answer=ANSWER, image=0)
    hashed.update(f"\n{row.question} {row.answer}".encode())
    size = model.image_size
    for shade in (0, 255):
        image_1SSC = np.full((1, size, size, 3), shade, np.uint8)
        corner_C = model.collate([row], image_1SSC).pixels_UCSS[0, :, 0, 0]
        hashed.update(f"\n{[f'{value:.3f}' for value in corner_C.tolist()]}".encode())
    return VERSION_2 + hashed.hexdigest()


def digest_like(stored: str, model: Model, folder: Path) -> str:
    """Digest of a model in the version of ``stored``, a digest to compare it with."""
    return digest(model, folder) if stored.startswith(VERSION_2) else model.digest


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name, relative to ``folder``, and content of each of ``FILES``, sorted by name."""
    found = {path for pattern in FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(found):
        yield path.relative_to(folder).as_posix(), path.read_bytes()
