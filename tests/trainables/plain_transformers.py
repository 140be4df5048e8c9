"""A model folder asked by transformers alone, through its own processor.

``AutoProcessor`` of some classes wants torchvision for its video processor. There the processor is
made of its class without one; Pixtral's, which can't be imported, is written out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoProcessor, AutoTokenizer
from transformers.models.auto import processing_auto

# Where torchvision is not installed, transformers 5.9 has it under this name alone.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

UNTILED = (
    "do_image_splitting",
    "do_pan_and_scan",
    "crop_to_patches",
    "do_resize",
    "do_center_crop",
)
"""Settings of image processors that cut an image into tiles or change its size."""
PROMPTS = {"LlavaProcessor": "USER: <image>\n{} ASSISTANT:", "PaliGemmaProcessor": "<image>{}"}
"""Class of a processor -> its prompt, where the folder has no chat template."""


def processor(folder: Path) -> Any:
    """The processor of a model folder."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    try:
        return AutoProcessor.from_pretrained(folder)
    except (ImportError, ValueError):
        images = AutoImageProcessor.from_pretrained(folder)
        words = AutoTokenizer.from_pretrained(folder)
    if kind == "mistral3":
        return Pixtral(folder, images, words)
    name = processing_auto.PROCESSOR_MAPPING_NAMES[kind]
    made: Any = processing_auto.processor_class_from_name(
        "Idefics3Processor" if kind == "smolvlm" else name
    )
    unchecked: Any = type(name, (made,), {"check_argument_for_proper_class": lambda *_: None})
    settings = json.loads((folder / "processor_config.json").read_text())
    own = {n: v for n, v in settings.items() if n in made.__init__.__annotations__ or n in VALUES}
    return unchecked(images, words, chat_template=words.chat_template, **own)


VALUES = ("image_seq_length", "image_seq_len", "num_image_tokens", "vision_feature_select_strategy")
"""Settings of processors that say how many tokens stand for an image."""


class Pixtral:
    """What ``PixtralProcessor`` does for one image."""

    def __init__(self, folder: Path, images: Any, words: Any) -> None:
        settings = json.loads((folder / "processor_config.json").read_text())
        self.side = settings["patch_size"] * settings["spatial_merge_size"]
        self.images, self.tokenizer, self.chat_template = images, words, words.chat_template

    def __call__(self, *, images: Any, text: str, **settings: Any) -> Mapping[str, Any]:
        """Tokens and pixels."""
        tokens = images.width // self.side
        line = "[IMG]" * tokens
        shown = "[IMG_BREAK]".join([line] * (images.height // self.side)) + "[IMG_END]"
        asked = self.tokenizer(text.replace("[IMG]", shown), return_tensors="pt")
        seen = self.images(images, return_tensors="pt", do_resize=False)
        return {**asked, **seen}


def asks(folder: Path, tokens: int, size: int) -> Callable[[Any, Path, str], str]:
    """A function that asks a network of the folder a question about an image.

    Images are made square and of ``size`` pixels a side before the processor gets them, and answers
    have as many ``tokens`` at most.
    """
    made = processor(folder)
    end = _end(made)

    def ask(network: Any, image: Path, question: str) -> str:
        seen = Image.open(image).convert("RGB")
        assert seen.size == (size, size)
        images = getattr(made, "image_processor", None)
        given: dict[str, Any] = {n: False for n in UNTILED if hasattr(images, n)}
        if hasattr(images, "image_grid_pinpoints"):
            images.image_grid_pinpoints = network.config.image_grid_pinpoints = [[size, size]]
        inputs = made(images=seen, text=_asked(made, question), return_tensors="pt", **given)
        found = network.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=end, pad_token_id=0
        )
        said = made.tokenizer.decode(
            found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        answer: str = said.strip()
        return answer

    return ask


def _asked(made: Any, question: str) -> str:
    """The prompt of a question, with one word for the image."""
    template = made.tokenizer.chat_template or made.chat_template
    if template is None:
        return PROMPTS[type(made).__name__].format(question)
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = made.tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=False,
    )
    return text


def _end(made: Any) -> int:
    """Token that ends an answer: that of a turn, if the chat template has one."""
    words = made.tokenizer
    found: int = words.eos_token_id
    return words.convert_tokens_to_ids("<end_of_turn>") if words.chat_template else found
