"""``tuned.json``: what is needed, beside the trained weights, to put a tuned model together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainables import stored_json
from trainables.data.common.multiple_choice import WAYS
from trainables.data.common.wording import DEFAULT_ASKING, Asking
from trainables.errors import BadInput
from trainables.models.common.quantisation import BaseBits
from trainables.training.regime import CHOOSE
from trainables.workload import PRECISIONS

FILE = "tuned.json"
VERSION = 1
"""Version of ``tuned.json`` that ``read`` understands."""


YOUNG = ("base_bits", "prompt", "system", "choose", "options")
"""Fields that are younger than the first exports: written only off their defaults."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is needed to put a tuned model together again."""

    version: int = VERSION
    """Version of the file."""
    model: str
    """Base model: ``tiny``, or its folder."""
    digest: str
    """Digest of the base model's weights and configuration."""
    recipe: Mapping[str, Mapping[str, Any]]
    """Recipe as ``Recipe.plain`` gives it."""
    seed: int
    """Seed of the random values that some methods keep frozen."""
    precision: str
    """Precision in which the model was trained and scored, ``fp32`` or ``bf16``."""
    image_size: int | None = None
    """Pixels a side of an image; None: the base model's own size."""
    answer_tokens: int = 10
    """Maximum number of tokens of an answer."""
    beams: int = 1
    """Number of beams in the search for an answer."""
    base_bits: BaseBits | None = None
    """How the base is quantised; None: it is not."""
    prompt: str = DEFAULT_ASKING.prompt
    """Prompt with which the model was trained and is asked."""
    system: str = DEFAULT_ASKING.system
    """System message; empty if there is none."""
    choose: str = CHOOSE[0]
    """How it answers a question with options (``trainables.training.regime.Regime``)."""
    options: str = "text"
    """How the options are written that are compared by their likelihoods; a key of
    ``trainables.data.common.multiple_choice.WAYS``."""

    @property
    def asking(self) -> Asking:
        """Prompt and system message.

        Raises:
            BadInput: one of them cannot be.
        """
        return Asking(prompt=self.prompt, system=self.system)


def write(folder: Path, described: Description) -> None:
    """Write ``tuned.json`` into ``folder``, which must exist."""
    content = asdict(described)
    for name in YOUNG:  # an older version reads the file where it can
        if content[name] == getattr(Description, name):
            del content[name]
    text = json.dumps(content, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Description:
    """Read the ``tuned.json`` of ``folder``.

    Raises:
        BadInput: the file is missing, damaged or of another version.
    """
    file = folder / FILE
    if not file.is_file():
        raise BadInput(f"{folder} holds no exported model; python -m study.export makes one")
    described = stored_json.read(Description, file, versions=[VERSION])
    for slot, tuning in described.recipe.items():
        if not isinstance(tuning.get("method"), str):
            raise BadInput(f"{file}: recipe.{slot} names no method")
    if described.precision not in PRECISIONS:
        allowed = " or ".join(PRECISIONS)
        raise BadInput(f"{file}: precision must be {allowed}, not {described.precision!r}")
    for name, known in (("choose", CHOOSE), ("options", WAYS)):
        if (value := getattr(described, name)) not in known:
            raise BadInput(f"{file}: {name} must be {' or '.join(known)}, not {value!r}")
    try:
        assert described.asking
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    for name in ("answer_tokens", "beams"):
        if getattr(described, name) < 1:
            raise BadInput(f"{file}: {name} must be at least 1, got {getattr(described, name)}")
    return described
