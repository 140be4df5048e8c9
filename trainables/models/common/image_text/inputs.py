"""Tokenizer and processors of a folder of ``AutoModelForImageTextToText``.

Image processor and tokenizer are loaded apart, since ``AutoProcessor`` of some classes also wants a
video processor and with it torchvision. The processor's own class says how the image is written out
in a prompt. Tiling is off, so every image gives the same number of tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto import processing_auto
from transformers.processing_utils import ProcessorMixin

from trainables.errors import BadInput
from trainables.models.common import normalisation, weights_folder
from trainables.models.common.image_text.image_prompt import ImagePrompt
from trainables.models.common.image_text.images import COUNTED, image_tokens
from trainables.models.common.prompt import word_of

PROCESSORS = {"smolvlm": "Idefics3Processor"}
"""Model type -> processor of another class that writes the same prompt: SmolVLM's own wants a
package that spells numbers in videos."""
AS_IT_IS = {
    "do_resize": False,
    "do_center_crop": False,
    "do_pad": False,
    "do_image_splitting": False,
    "do_pan_and_scan": False,
    "crop_to_patches": False,
    "return_row_col_info": True,
}
"""Settings of image processors, where they have them, for an image that has the right size."""


class Inputs:
    """Tokenizer, image processor and prompt of a model folder."""

    def __init__(self, path: Path, config: Any, size: int, called: str) -> None:
        """Read the folder's tokenizer and processors.

        Raises:
            BadInput: one is missing or damaged, the chat template does not show image and question,
                or another number of tokens stands for an image than the configuration has.
        """
        self.image: int = config.image_token_id
        with weights_folder.reading(f"the tokenizer or processor of {called} can't be read"):
            self._read(path, config, size, called)

    def _read(self, path: Path, config: Any, size: int, called: str) -> None:
        """Read the folder's files."""
        local: Any = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, **local)
        word_of(self.image, "image_token_id", self.tokenizer, called)
        images: Any = AutoImageProcessor.from_pretrained(path, **local)
        settings, _ = ProcessorMixin.get_processor_dict(path, local_files_only=True)
        # A copy, since PaliGemma's processor adds tokens that the model may have no row for.
        processor = _processor(settings, config.model_type, images, deepcopy(self.tokenizer))
        self.pixels = normalisation.of_processor(images, called).pixels
        """Normalises images as the folder's processor does."""
        self.prompt = ImagePrompt(
            called=called,
            model_type=config.model_type,
            tokenizer=self.tokenizer,
            image=self.image,
            word=processor.image_token,
            written=_written(processor, images, size),
            template=_template(settings.get("chat_template") or self.tokenizer.chat_template),
        )
        self.run = self.prompt.run(self.image, called)
        """Tokens that stand for an image, from the first to the last."""
        self.called = called
        if config.model_type in COUNTED:
            self.check_features(image_tokens(config, size))
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.prompt.end if pad is None else pad

    def check_features(self, features: int) -> None:
        """Check that an image has as many tokens as the network has ``features`` of it.

        Raises:
            BadInput: it has not.
        """
        tokens = self.run.count(self.image)
        if tokens != features:
            raise BadInput(
                f"the processor of {self.called} writes {tokens} tokens for an image, but the "
                f"network has {features} features of it; give back processor_config.json, "
                "preprocessor_config.json or config.json, whichever is not the model's"
            )

    def shortened(self, question: Sequence[int]) -> tuple[int, ...]:
        """A question with one token in place of those that stand for its image."""
        first = question.index(self.image)
        return (*question[: first + 1], *question[first + len(self.run) :])

    def expanded(self, question: Sequence[int]) -> tuple[int, ...]:
        """The inverse of ``shortened``."""
        first = question.index(self.image)
        return (*question[:first], *self.run, *question[first + 1 :])


def _template(found: str | Mapping[str, str] | None) -> str | None:
    """The chat template that is used without a name, where a folder may have several."""
    return found.get("default") if isinstance(found, Mapping) else found


def _processor(settings: Mapping[str, Any], model_type: str, images: Any, tokenizer: Any) -> Any:
    """A processor of the class that belongs to ``model_type``, without a video processor."""
    if model_type in OWN:
        return OWN[model_type](settings)
    processors: Any = processing_auto
    name = PROCESSORS.get(model_type) or processors.PROCESSOR_MAPPING_NAMES[model_type]
    kind: Any = processors.processor_class_from_name(name)
    parts = {"image_processor": images, "tokenizer": tokenizer, "video_processor": None}
    takes = inspect.signature(kind.__init__).parameters
    given: Mapping[str, Any] = {n: v for n, v in settings.items() if n in takes} | {
        n: part for n, part in parts.items() if n in takes
    }
    unchecked = {"check_argument_for_proper_class": lambda *_: None}
    return type(kind.__name__, (kind,), unchecked)(**given)


class _Pixtral:
    """What is used here of ``PixtralProcessor``, which can't be imported without torchvision."""

    image_token = "[IMG]"  # noqa: S105  # a word, no password

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.unit = settings.get("patch_size", 16) * settings.get("spatial_merge_size", 1)

    def replace_image_token(self, images: Mapping[str, Any], image: int) -> str:
        """An image written out: a token for each square of patches, and one after each line."""
        height, width = images["image_sizes"][image]
        line = self.image_token * (width // self.unit) + "[IMG_BREAK]"
        lines: str = line * (height // self.unit)
        return lines.removesuffix("[IMG_BREAK]") + "[IMG_END]"


OWN = {"mistral3": _Pixtral}
"""Model type -> what stands for its processor."""


def _written(processor: Any, images: Any, size: int) -> str:
    """The text that the processor puts in place of an image of the model's size."""
    settings: dict[str, Any] = {
        name: value
        for name, value in AS_IT_IS.items()
        if name in images.valid_kwargs.__annotations__ or hasattr(images, name)
    }
    if hasattr(images, "image_grid_pinpoints"):
        images.image_grid_pinpoints = [[size, size]]
        settings.pop("do_pad", None)
    blank_SSC = np.zeros((size, size, 3), np.uint8)
    text: str = processor.replace_image_token(images(blank_SSC, **settings), 0)
    return text
