"""Prompts with which a chat model is asked about an image, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.data.common.wording import BARE, PLACE, Wording, no_system
from trainables.errors import BadInput
from trainables.models.common.chat_template import (
    NOT_SHOWN,
    TEMPLATE_WITHOUT_SYSTEM,
    NotRendered,
    asking,
    messages,
    shows,
    template_file,
)

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
        answer = self._without_image(answer)
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
            BadInput: ``wording`` has a system message that the chat template does not take, or a
                word that stands for an image.
        """
        self._refuse_image(wording)
        question = self._without_image(question)
        words = self._tokens(question, specials=False)
        if len(words) > QUESTION_TOKENS:
            question = self.tokenizer.decode(words[:QUESTION_TOKENS])
        text, between = self._with_system(wording.system.strip())
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
        why = NOT_SHOWN.format(image)
        for user, told in messages(image, system):
            try:
                text = asking(tokenizer, template, [*told, user])
            except NotRendered as error:
                why = str(error)
                continue
            if shows(text, image, told):
                return text, None
            why = NOT_SHOWN.format(image)
        if system:
            raise BadInput(no_system(self.name, TEMPLATE_WITHOUT_SYSTEM))
        raise BadInput(
            f"the chat template of {self.name} ({template_file(tokenizer)}) {why}; mend or remove "
            "it"
        )

    def _refuse_image(self, wording: Wording) -> None:
        """Refuse words that stand for an image in what the user gave.

        Raises:
            BadInput: there is one.
        """
        for name, text in (("prompt", wording.prompt), ("system", wording.system)):
            for word in self.image_words:
                if word in text:
                    raise BadInput(
                        f"{name} {text!r} has {word}, which stands for the image in prompts of "
                        f"{self.name}; leave it out, since the image is put in by itself"
                    )

    def _without_image(self, text: str) -> str:
        """A text without the words that stand for an image."""
        for word in self.image_words:
            text = text.replace(word, "")
        return text

    def _tokens(self, words: str, *, specials: bool) -> list[int]:
        tokens: list[int] = self.tokenizer(words, add_special_tokens=specials)["input_ids"]
        return tokens


def word_of(image: object, setting: str, tokenizer: Any, called: str) -> str:
    """The token with the number ``image``, which stands for an image, as the setting of
    ``config.json`` says.

    Raises:
        BadInput: the tokenizer has no such token.
    """
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    if type(image) is not int or image not in words:
        raise BadInput(
            f"the tokenizer of {called} has no token {image!r}, which stands for the image "
            f"({setting} in config.json); its tokens are from 0 to {max(words)}"
        )
    return str(words[image])


def image_words(model: object) -> Sequence[str]:
    """Words that stand for an image in a model's prompt, and are left out of questions."""
    prompt = getattr(model, "prompt", None)
    return prompt.image_words if isinstance(prompt, Prompt) else ()
