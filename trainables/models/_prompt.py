"""How a chat model is asked about an image: a prompt around each question, in tokens."""

from __future__ import annotations

from typing import Any

import jinja2

from trainables.errors import BadInput

QUESTION_TOKENS = 256
AROUND_TOKENS = 10  # what is around a question, about
USUAL = {
    "llama": "USER: {image}\n{question} ASSISTANT:",
    "mistral": "[INST] {image}\n{question} [/INST]",
}
"""Decoder -> how LLaVA asks it. Folders with a chat template of their own are asked by that."""


class Prompt:
    """The prompt of one model, with its tokenizer."""

    def __init__(self, *, name: str, tokenizer: Any, image_word: str, decoder: str) -> None:
        """``image_word`` stands for the image; ``decoder`` is a key of ``USUAL``.

        Raises:
            BadInput: the tokenizer's chat template does not show image and question, once each.
        """
        self.tokenizer, self.image_word = tokenizer, image_word
        self.text = _template(name, tokenizer, image_word, decoder)
        """What is read before an answer, with ``{question}`` where it stands."""
        begun = self.text.startswith(tokenizer.bos_token or "\0")
        self.specials = not begun  # a template may hold what the tokenizer would put ahead

    def around(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """The prompt's tokens, with one for the image, and those of the answer that follows."""
        words = self._tokens(question, specials=False)
        if len(words) > QUESTION_TOKENS:
            question = self.tokenizer.decode(words[:QUESTION_TOKENS])
        question = question.replace(self.image_word, "")
        prompt = self.text.replace("{question}", question)
        asked = self._tokens(prompt, specials=self.specials)
        between = "" if prompt[-1].isspace() else " "
        whole = self._tokens(prompt + between + answer.strip(), specials=self.specials)
        # Where the prompt's last token would grow into the answer, each is read by itself.
        together = whole[: len(asked)] == asked
        said = whole[len(asked) :] if together else self._tokens(answer.strip(), specials=False)
        return asked, said

    def _tokens(self, words: str, *, specials: bool) -> list[int]:
        tokens: list[int] = self.tokenizer(words, add_special_tokens=specials)["input_ids"]
        return tokens


def _template(name: str, tokenizer: Any, image: str, decoder: str) -> str:
    if tokenizer.chat_template is None:
        return USUAL[decoder].replace("{image}", image)
    # Templates of processors want the parts of a message apart, those of tokenizers one text.
    apart = [{"type": "image"}, {"type": "text", "text": "{question}"}]
    for content in (apart, f"{image}\n{{question}}"):
        try:
            said = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError):
            continue
        if said.count(image) == said.count("{question}") == 1:
            return str(said)
    raise BadInput(
        f"the chat template of {name} does not show {image} and the question, once each; "
        "mend or remove it"
    )
