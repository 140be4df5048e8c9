"""Prompts with which a chat model is asked about an image, in tokens."""

from __future__ import annotations

import datetime
from typing import Any

import jinja2

from trainables.errors import BadInput

DATE = datetime.date(2026, 1, 1)
"""Date that a chat template is told if it asks for today's: a model's numbers must be the same
tomorrow."""
DIRECTIVES = ("-d", "-m", *"aAbBdHIjmMpSUwWxXyY")
"""Directives of ``strftime`` that templates use, without their percent sign."""
FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{d}', '{DATE.strftime(f'%{d}')}')" for d in DIRECTIVES)
    + " }}{% endmacro %}"
)
"""Beginning of every chat template: it gets ``DATE`` where it asks for the date of today."""
QUESTION_TOKENS = 256  # longer questions are cut off
AROUND_TOKENS = 10  # tokens around a question, approximately
USUAL = {
    "llama": "USER: {image}\n{question} ASSISTANT:",
    "mistral": "[INST] {image}\n{question} [/INST]",
}
"""Decoder -> the prompt that LLaVA uses with it. The chat template of a folder takes precedence."""


class Prompt:
    """The prompt of one model, with its tokenizer."""

    between: str | None = None
    """Text between the prompt and an answer; None: a blank, unless the prompt ends with one."""

    def __init__(self, *, name: str, tokenizer: Any, image_word: str, decoder: str) -> None:
        """Make the prompt of the model ``name``.

        ``image_word`` is the word that stands for the image; ``decoder`` is a key of ``USUAL``.

        Raises:
            BadInput: the tokenizer's chat template does not show image and question, once each.
        """
        self.tokenizer, self.image_word = tokenizer, image_word
        self.text = _template(name, tokenizer, image_word, decoder)
        """Text before an answer, with ``{question}`` in place of the question."""
        begun = self.text.startswith(tokenizer.bos_token or "\0")
        self.specials = not begun  # a template may hold the tokens that the tokenizer would add

    def around(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, with one for the image, and of the answer that follows it."""
        words = self._tokens(question, specials=False)
        if len(words) > QUESTION_TOKENS:
            question = self.tokenizer.decode(words[:QUESTION_TOKENS])
        question = question.replace(self.image_word, "")
        prompt = self.text.replace("{question}", question)
        asked = self._tokens(prompt, specials=self.specials)
        between = self.between
        if between is None:
            between = "" if prompt[-1].isspace() else " "
        whole = self._tokens(prompt + between + answer.strip(), specials=self.specials)
        # If the prompt's last token would merge with the answer, each is tokenised by itself.
        together = whole[: len(asked)] == asked
        said = whole[len(asked) :] if together else self._tokens(answer.strip(), specials=False)
        return asked, said

    def _tokens(self, words: str, *, specials: bool) -> list[int]:
        tokens: list[int] = self.tokenizer(words, add_special_tokens=specials)["input_ids"]
        return tokens


def _template(name: str, tokenizer: Any, image: str, decoder: str) -> str:
    """The prompt as text, from the tokenizer's chat template or from ``USUAL``."""
    if tokenizer.chat_template is None:
        return USUAL[decoder].replace("{image}", image)
    # Templates of processors expect the parts of a message, those of tokenizers one text.
    template = FIXED_DATE + tokenizer.get_chat_template()
    apart = [{"type": "image"}, {"type": "text", "text": "{question}"}]
    for content in (apart, f"{image}\n{{question}}"):
        try:
            said = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                chat_template=template,
            )
        except (jinja2.TemplateError, TypeError):
            continue
        if said.count(image) == said.count("{question}") == 1:
            return str(said)
    raise BadInput(
        f"the chat template of {name} does not show {image} and the question, once each; "
        "mend or remove it"
    )
