"""Chat templates: conversations about an image as text, without date and without thinking."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from trainables.data.common.wording import PLACE

DATE = datetime.date(2026, 1, 1)
"""Date that a chat template is told if it asks for today's: a model's numbers must be the same
tomorrow."""
DIRECTIVES = (*(f"-{letter}" for letter in "dmeHIjMS"), *"aAbBcdDeFGHIjmMpRSTuUVwWxXyY")
"""Directives of ``strftime`` that templates may use, without their percent sign."""
FIXED_DATE = (
    "{% macro strftime_now(format) %}{% set date = format"
    + "".join(f" | replace('%{d}', '{DATE.strftime(f'%{d}')}')" for d in DIRECTIVES)
    + " %}{% if '%' in date %}{{ raise_exception('strftime_now does not know ' ~ format) }}"
    "{% endif %}{{ date }}{% endmacro %}"
)
"""Beginning of every chat template: it gets ``DATE`` where it asks for the date of today."""
SWITCHES = {"enable_thinking": False, "thinking": False, "reasoning": False}
"""Variables by which chat templates of models that can think before they answer are told not to.
Qwen3.5, Gemma, SmolLM3 and GLM have the first, DeepSeek and Granite the second, Cohere's the
third."""
THINK = "<think>"
"""Word after which a model thinks. A template without a switch may end a prompt with it."""
THOUGHT = f"{THINK}\n\n</think>\n\n"
"""What templates with a switch write in its place when a model shall not think."""
TEMPLATE_WITHOUT_SYSTEM = "its chat template refuses it or leaves it out"
Message = Mapping[str, Any]
"""A message of a conversation, as chat templates take it."""


def messages(image: str, system: str) -> Iterator[tuple[Message, list[Message]]]:
    """The user's message and the system's, if there is one, in the forms that templates expect:
    those of processors the parts of a message, those of tokenizers one text."""
    parts = [{"type": "image"}, {"type": "text", "text": PLACE}]
    for asked, told in (
        (parts, [{"type": "text", "text": system}]),
        (parts, system),
        (f"{image}\n{PLACE}", system),
    ):
        user = {"role": "user", "content": asked}
        yield user, [{"role": "system", "content": told}] if system else []


def shows(text: str, image: str, told: Sequence[Message]) -> bool:
    """Whether a rendered conversation has image and question, once each, and the system message:
    its text, and not its parts, as a template that expects a text would write them."""
    if not text.count(image) == text.count(PLACE) == 1:
        return False
    for content in (message["content"] for message in told):
        if isinstance(content, str):
            return content in text
        return str(content) not in text and all(part["text"] in text for part in content)
    return True


NOT_SHOWN = "does not show {} and the question, once each"
"""Why a template is refused that can be rendered."""


KNOWN = (
    " (there are messages, add_generation_prompt, the tokenizer's special tokens and, for the "
    "date, strftime_now)"
)
"""Variables that a template may use, said of one that uses another."""


class NotRendered(Exception):
    """A chat template that does not take a conversation; its text says why."""


def asking(tokenizer: Any, template: str, conversation: Sequence[Message]) -> str:
    """A conversation as text, up to the answer, which the model gives without thinking.

    Raises:
        NotRendered: the template does not take it.
    """
    text = rendered(tokenizer, template, conversation, add_generation_prompt=True)
    begun = text.rstrip()
    return begun.removesuffix(THINK) + THOUGHT if begun.endswith(THINK) else text


def rendered(
    tokenizer: Any, template: str, conversation: Sequence[Message], *, add_generation_prompt: bool
) -> str:
    """A conversation as text.

    Raises:
        NotRendered: the template does not take it.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            conversation,
            chat_template=FIXED_DATE + template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **SWITCHES,
        )
    except jinja2.TemplateSyntaxError as error:
        raise NotRendered(f"is no Jinja template: line {error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, TypeError) as error:
        known = KNOWN * isinstance(error, jinja2.UndefinedError)
        raise NotRendered(f"can't be rendered: {' '.join(str(error).split())}{known}") from error
    return text


def template_file(tokenizer: Any) -> str:
    """Name of the file in a tokenizer's folder that its chat template is read from."""
    folder = Path(tokenizer.name_or_path)
    files = ("chat_template.jinja", "chat_template.json")
    found = (name for name in files if (folder / name).is_file())
    return next(found, "chat_template in tokenizer_config.json")
