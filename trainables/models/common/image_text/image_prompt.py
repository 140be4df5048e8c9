"""Prompts of ``AutoModelForImageTextToText`` in tokens, those of the image among them."""

from __future__ import annotations

from typing import Any

from trainables.data.common.wording import Wording, no_system
from trainables.errors import BadInput
from trainables.models.common.chat_template import (
    NOT_SHOWN,
    TEMPLATE_WITHOUT_SYSTEM,
    NotRendered,
    asking,
    messages,
    rendered,
    shows,
    template_file,
)
from trainables.models.common.prompt import Prompt

WITHOUT_TEMPLATE = {"paligemma": "{image}<bos>{question}\n"}
"""Model type -> prompt of a model that has no chat template, as its processor writes it."""


class ImagePrompt(Prompt):
    """The prompt of a model, with all tokens that stand for the image, and what ends an answer."""

    def __init__(
        self,
        *,
        called: str,
        model_type: str,
        tokenizer: Any,
        image: int,
        word: str,
        written: str,
        template: str | None,
    ) -> None:
        """Make the prompt of the model ``called``.

        ``word`` stands for the image in the chat template, and ``written`` is the text that the
        processor puts in its place; ``image`` is the token in it that the encoder's output takes
        the place of.

        Raises:
            BadInput: the template does not show image and question, once each; or nothing is known
                to end an answer.
        """
        if template is None and model_type not in WITHOUT_TEMPLATE:
            raise BadInput(
                f"{called} has no chat template, so it is not known how it is asked; put "
                "chat_template.jinja into its folder"
            )
        self.tokenizer, self.model_type, self.template = tokenizer, model_type, template
        self.written = written
        self.begin(called, [word, tokenizer.convert_ids_to_tokens(image)])
        if template is None:  # the prompt has the special tokens
            self.specials = False
        ends = tokenizer(self.after.strip(), add_special_tokens=False)["input_ids"]
        end = ends[0] if ends else tokenizer.eos_token_id
        if end is None:
            raise BadInput(f"the tokenizer of {called} has no eos_token, which ends an answer")
        self.end: int = end
        """Token that ends an answer: the first after it in the chat template."""

    def render(self, system: str) -> tuple[str, str | None]:
        """The text before an answer, and the text between this and an answer, as the chat template
        or the processor writes them. ``after`` is then the text that follows an answer.

        Raises:
            BadInput: the template does not show image and question, once each, or takes no system
                message.
        """
        word, self.after = self.image_words[0], ""
        if self.template is None:
            Wording(system=system).refuse_system(self.name)
            text = WITHOUT_TEMPLATE[self.model_type].replace("{image}", word)
            return text.replace("<bos>", self.tokenizer.bos_token or ""), ""
        text, between, self.after = _texts(self.name, self.tokenizer, self.template, word, system)
        return text, between

    def run(self, image: int, called: str) -> list[int]:
        """Tokens from the first to the last that stands for the image.

        Raises:
            BadInput: the prompt has no token ``image``.
        """
        asked, _ = self.around("", "")
        if image not in asked:
            raise BadInput(
                f"the prompt of {called} has no token {image}, which stands for the image "
                "(image_token_id in config.json)"
            )
        last = len(asked) - asked[::-1].index(image)
        return asked[asked.index(image) : last]

    def _tokens(self, words: str, *, specials: bool) -> list[int]:
        return super()._tokens(words.replace(self.image_words[0], self.written), specials=specials)


def _texts(
    called: str, tokenizer: Any, template: str, word: str, system: str
) -> tuple[str, str, str]:
    """The prompt as text, what stands between it and the answer, and what follows the answer.

    Raises:
        BadInput: the template does not show image and question, once each, as parts of a message;
            or it refuses the system message.
    """
    said, why = "{answer}", NOT_SHOWN.format(word)
    for user, told in messages(word, system):
        if isinstance(user["content"], str):
            continue  # a template for texts alone would not write what is around an image
        answer = {"role": "assistant", "content": [{"type": "text", "text": said}]}
        try:
            text = asking(tokenizer, template, [*told, user])
            whole = rendered(
                tokenizer, template, [*told, user, answer], add_generation_prompt=False
            )
        except NotRendered as error:
            why = str(error)
            continue
        if not shows(text, word, told):
            continue
        before, found, after = whole.partition(said)
        blank = "" if text[-1].isspace() else " "
        between = before.removeprefix(text) if before.startswith(text) else blank
        return text, between, after if found else ""
    if system:
        raise BadInput(no_system(called, TEMPLATE_WITHOUT_SYSTEM))
    raise BadInput(
        f"the chat template of {called} ({template_file(tokenizer)}) {why}; put the model's own "
        "chat_template.jinja into its folder"
    )
