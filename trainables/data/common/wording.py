"""How questions are put to a model: the prompt around a question, its options, a system message.

A prompt is a text with ``{question}`` in place of the question. The options of a multiple-choice
question follow the question, each in a line of its own as ``A: text``, as in PMC-VQA (Zhang et al.
2023, arXiv 2305.10415), and are part of what ``{question}`` stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.errors import BadInput

PLACE = "{question}"
"""Placeholder of a prompt, where the question and its options are put."""
LONGEST = 4000
"""Characters that a prompt or a system message may have: MLflow stores no longer parameter."""
BRIEF = f"{PLACE}\nAnswer the question using a single word or phrase."
"""Prompt that asks a model which follows instructions for a bare answer, as LLaVA-1.5 does (Liu et
al. 2023, arXiv 2310.03744)."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Letters of a question's options, in order."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Texts that are added to one question."""

    before: str = ""
    """Text before the question."""
    after: str = ""
    """Text after the question: its options, and the rest of the prompt."""
    system: str = ""
    """System message; empty if there is none."""
    prompt: str = PLACE
    """The prompt of which ``before`` and ``after`` are parts, as the user gave it."""

    def around(self, question: str) -> str:
        """The question between the texts before and after it."""
        return self.before + question + self.after

    def refuse_system(self, model: str) -> None:
        """Refuse a system message for a model that has no chat template.

        Raises:
            BadInput: there is a system message.
        """
        if self.system:
            raise BadInput(no_system(model, "it has no chat template"))


BARE = Wording()


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Prompt and system message with which all questions are asked. A wrong value raises
    ``BadInput``."""

    prompt: str = PLACE
    """Text that is asked, with ``PLACE`` in place of a question and its options."""
    system: str = ""
    """System message, for models with a chat template; empty: none, or the template's own."""

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        check_system(self.system)

    def but(self, prompt: str | None, system: str | None) -> Asking:
        """Copy with another prompt or system message, where one is given."""
        return Asking(
            prompt=self.prompt if prompt is None else prompt,
            system=self.system if system is None else system,
        )

    def wording(self, options: Sequence[str] = ()) -> Wording:
        """Texts that are added to a question with these options."""
        before, _, after = self.prompt.partition(PLACE)
        lines = [f"\n{option}" for option in labelled(options)]
        return Wording(
            before=before,
            after="".join(lines) + after,
            system=self.system.strip(),
            prompt=self.prompt,
        )


def labelled(options: Sequence[str]) -> list[str]:
    """Options with their letters, as ``A: text``."""
    return [f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=False)]


def check_prompt(prompt: object) -> None:
    """Check a prompt.

    Raises:
        BadInput: it is no text, is too long, lacks ``PLACE``, or has it twice or another
            placeholder.
    """
    text = _text("prompt", prompt)
    names = re.findall(r"\{\w*\}", text)
    for name in names:
        if name != PLACE:
            raise BadInput(f"prompt {text!r} has {name}; the only placeholder is {PLACE}")
    if len(names) != 1:
        raise BadInput(
            f"prompt {text!r} must have {PLACE} once, where the question goes, "
            f"but has it {len(names)} times"
        )


def check_system(system: object) -> None:
    """Check a system message.

    Raises:
        BadInput: it is no text, is blank or too long, or has ``PLACE``.
    """
    text = _text("system", system)
    if text and not text.strip():
        raise BadInput("system is blank; give a text, or leave it out")
    if PLACE in text:
        raise BadInput(f"system {text!r} has {PLACE}, which is for the prompt")


def no_system(model: str, why: str) -> str:
    """The complaint about a system message for a model that takes none."""
    return f"{model} takes no system message: {why}; put the text into the prompt"


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{name} must be a text but got {value!r}")
    if len(value) > LONGEST:
        raise BadInput(f"{name} has {len(value):,} characters; at most {LONGEST:,} are allowed")
    return value


DEFAULT_ASKING = Asking()
