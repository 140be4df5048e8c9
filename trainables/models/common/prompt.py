"""Prompts with which a chat model is asked about an image, in tokens."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import jinja2

from trainables.data.common.wording import BARE, PLACE, Wording, no_system
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
TEMPLATE_WITHOUT_SYSTEM = "its chat template refuses it or leaves it out"
QUESTION_TOKENS = 256  # longer questions are cut off
AROUND_TOKENS = 10  # tokens around a question, approximately
USUAL = {
    "llama": "USER: {image}\n{question} ASSISTANT:",
    "mistral": "[INST] {image}\n{question} [/INST]",
}
"""Decoder -> the prompt that LLaVA uses with it. The chat template of a folder takes precedence."""


class Prompt:
    """The prompt of one model, with its tokenizer."""

    def __init__(self, *, name: str, tokenizer: Any, image_word: str, decoder: str) -> None:
        """Make the prompt of the model ``name``.

        ``image_word`` is the word that stands for the image; ``decoder`` is a key of ``USUAL``.

        Raises:
            BadInput: the tokenizer's chat template does not show image and question, once each.
        """
        self.tokenizer, self.decoder = tokenizer, decoder
        self.begin(name, [image_word])

    def begin(self, name: str, image_words: Sequence[str]) -> None:
        """Render the prompt without a system message. ``image_words`` stand for the image, the
        first of them in the chat template.

        Raises:
            BadInput: as when a prompt is made.
        """
        self.name, self.image_words = name, image_words
        self._rendered: dict[str, tuple[str, str | None]] = {}
        text, _ = self._with_system("")
        begun = text.startswith(self.tokenizer.bos_token or "\0")
        self.specials = not begun  # a template may hold the tokens that the tokenizer would add

    @property
    def text(self) -> str:
        """Text before an answer, with ``PLACE`` in place of the question."""
        return self._with_system("")[0]

    def around(
        self, question: str, answer: str, wording: Wording = BARE
    ) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, with one for the image, and of the answer that follows it.

        Raises:
            BadInput: ``wording`` has a system message that the chat template does not take.
        """
        prompt, between = self.asked(question, wording)
        asked = self._tokens(prompt, specials=self.specials)
        if between is None:
            between = "" if prompt[-1].isspace() else " "
        whole = self._tokens(prompt + between + answer.strip(), specials=self.specials)
        # If the prompt's last token would merge with the answer, each is tokenised by itself.
        together = whole[: len(asked)] == asked
        said = whole[len(asked) :] if together else self._tokens(answer.strip(), specials=False)
        return asked, said

    def asked(self, question: str, wording: Wording) -> tuple[str, str | None]:
        """The prompt as text, and the text between it and an answer, as ``render`` gives it.

        Raises:
            BadInput: ``wording`` has a system message that the chat template does not take.
        """
        question = self._without_image(question)
        words = self._tokens(question, specials=False)
        if len(words) > QUESTION_TOKENS:
            question = self.tokenizer.decode(words[:QUESTION_TOKENS])
        text, between = self._with_system(self._without_image(wording.system).strip())
        return text.replace(PLACE, self._without_image(wording.around(question))), between

    def _with_system(self, system: str) -> tuple[str, str | None]:
        """What ``render`` gives for a system message; it is rendered once.

        Raises:
            BadInput: the prompt can't be rendered, or takes no system message.
        """
        if system not in self._rendered:
            self._rendered[system] = self.render(system)
        return self._rendered[system]

    def render(self, system: str) -> tuple[str, str | None]:
        """The text before an answer, with ``PLACE`` in place of the question, from the tokenizer's
        chat template or from ``USUAL``; and the text between this and an answer. The latter is None
        for a blank, unless the prompt ends with one.

        Raises:
            BadInput: the template does not show image and question, once each, or takes no system
                message.
        """
        tokenizer, image = self.tokenizer, self.image_words[0]
        if tokenizer.chat_template is None:
            Wording(system=system).refuse_system(self.name)
            return USUAL[self.decoder].replace("{image}", image), None
        template = tokenizer.get_chat_template()
        for user, told in messages(image, system):
            text = rendered(tokenizer, template, [*told, user], add_generation_prompt=True)
            if shows(text, image, told):
                return text, None
        if system:
            raise BadInput(no_system(self.name, TEMPLATE_WITHOUT_SYSTEM))
        raise BadInput(
            f"the chat template of {self.name} does not show {image} and the question, once each; "
            "mend or remove it"
        )

    def _without_image(self, text: str) -> str:
        """A text without the words that stand for an image."""
        for word in self.image_words:
            text = text.replace(word, "")
        return text

    def _tokens(self, words: str, *, specials: bool) -> list[int]:
        tokens: list[int] = self.tokenizer(words, add_special_tokens=specials)["input_ids"]
        return tokens


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


def shows(text: str | None, image: str, told: Sequence[Message]) -> TypeGuard[str]:
    """Whether a rendered conversation has image and question, once each, and the system message:
    its text, and not its parts, as a template that expects a text would write them."""
    if text is None or not text.count(image) == text.count(PLACE) == 1:
        return False
    for content in (message["content"] for message in told):
        if isinstance(content, str):
            return content in text
        return str(content) not in text and all(part["text"] in text for part in content)
    return True


def rendered(
    tokenizer: Any, template: str, conversation: Sequence[Message], **settings: Any
) -> str | None:
    """A conversation as text; None if the template does not take it."""
    try:
        text: str = tokenizer.apply_chat_template(
            conversation,
            chat_template=FIXED_DATE + template,
            tokenize=False,
            **settings,
        )
    except (jinja2.TemplateError, TypeError):
        return None
    return text
