"""Inputs of ``AutoModelForImageTextToText``: square images of one size, and prompts in tokens.

Image processor and tokenizer are loaded apart, since ``AutoProcessor`` of some classes also wants a
video processor and with it torchvision. The processor's own class says how the image is written out
in a prompt. Tiling is off, so every image gives the same number of tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto import processing_auto
from transformers.processing_utils import ProcessorMixin

from trainables.data.common.wording import Wording, no_system
from trainables.errors import BadInput
from trainables.models.common.image_text_network import layer_read
from trainables.models.common.prompt import (
    TEMPLATE_WITHOUT_SYSTEM,
    Prompt,
    messages,
    rendered,
    shows,
)

PROCESSORS = {"smolvlm": "Idefics3Processor"}
"""Model type -> processor of another class that writes the same prompt: SmolVLM's own wants a
package that spells numbers in videos."""
WITHOUT_TEMPLATE = {"paligemma": "{image}<bos>{question}\n"}
"""Model type -> prompt of a model that has no chat template, as its processor writes it."""
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
COUNTED = (
    "gemma3",
    "glm4v",
    "idefics3",
    "internvl",
    "paligemma",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_vl",
    "smolvlm",
)
"""Model types of which ``image_tokens`` tells the same number as the processor."""
LARGEST = 448
"""Pixels a side of an image, or a little less, for encoders that take any size."""


def image_size_of(config: Any, image_size: int | None, called: str) -> int:
    """Pixels a side of the images, for a model's configuration and the user's ``image_size``.

    Raises:
        BadInput: the encoder takes no images of that size.
    """
    vision = config.vision_config
    unit = vision.patch_size * _merged(config)
    if not _takes_any_size(config):
        own = vision.image_size
        own = own if isinstance(own, int) else own[0]
        if image_size not in (None, own):
            raise BadInput(
                f"--image-size {image_size}: {called} takes images of {own} px only; leave out "
                "--image-size"
            )
        return int(own)
    if image_size is None:
        return int(max(LARGEST // unit, 1) * unit)
    if image_size < unit or image_size % unit:
        below = max(image_size // unit, 1) * unit
        raise BadInput(
            f"--image-size {image_size} is no multiple of {unit}, the pixels a side of a token of "
            f"{called}; {below} and {below + unit} are"
        )
    return image_size


def _takes_any_size(config: Any) -> bool:
    """Whether positions in an image are computed for its size: by RoPE in two dimensions, or by
    interpolation of a table that belongs to no size."""
    return hasattr(config.vision_config, "spatial_merge_size") or hasattr(
        config, "spatial_merge_size"
    )


def _merged(config: Any) -> int:
    """Patches a side of a token."""
    for part in (config.vision_config, config):
        if isinstance(found := getattr(part, "spatial_merge_size", None), int):
            return found
    return 1


def image_tokens(config: Any, size: int) -> int:
    """Number of tokens that stand for an image of ``size`` pixels a side, by a configuration.

    Raises:
        BadInput: the processor of the class also writes tiles, or tokens between lines.
    """
    if config.model_type not in COUNTED:
        raise BadInput(
            f"how many tokens stand for an image of a model of type {config.model_type} is known "
            f"only with its processor: give a folder; a preset may be of: {', '.join(COUNTED)}"
        )
    patch = config.vision_config.patch_size
    side = size // (patch if isinstance(patch, int) else patch[0])
    if (tokens := getattr(config, "mm_tokens_per_image", None)) is not None:
        return int(tokens)
    if (ratio := getattr(config, "downsample_ratio", None)) is not None:
        return int((side * ratio) ** 2)
    merged = getattr(config, "scale_factor", None) or _merged(config)
    return int(side**2 // merged**2)


class Layout:
    """The form in which a network takes normalised images of one size."""

    def __init__(self, network: Any, size: int) -> None:
        given = inspect.signature(network.base_model.get_image_features).parameters
        config = network.config
        self.size, self.vision = size, config.vision_config
        self.patches = "image_grid_thw" in given
        """Whether it takes patches and the number of patches a side."""
        self.tiles = "image_sizes" in given and hasattr(config, "image_grid_pinpoints")
        """Whether it takes the whole image and its tiles. With tiling off there is one tile, which
        is the image again."""
        self.sizes = "image_sizes" in given
        self.images = "pixel_attention_mask" in given
        """Whether it takes several images for each question, in a dimension of their own."""
        self.merge = _merged(config)
        if self.tiles:
            config.image_grid_pinpoints = [[size, size]]
        read = layer_read(network)
        # Counted from the first layer, since those after it are set aside.
        self.read = {} if read is None else {"vision_feature_layer": read}

    def encoded(self, pixels_UCSS: Tensor) -> dict[str, Any]:
        """Arguments of ``get_image_features``."""
        return {**self._images(pixels_UCSS), **self.read}

    def _images(self, pixels_UCSS: Tensor) -> dict[str, Tensor]:
        images = len(pixels_UCSS)
        if self.patches:
            return {"pixel_values": self._patches(pixels_UCSS), **self.grid(pixels_UCSS, images)}
        if self.images:
            return {"pixel_values": pixels_UCSS[:, None]}
        found = {"pixel_values": pixels_UCSS}
        if self.tiles:
            found["pixel_values"] = pixels_UCSS[:, None].expand(-1, 2, -1, -1, -1)
        if self.sizes:
            # Read by the host, image by image.
            found["image_sizes"] = torch.full((images, 2), self.size)
        return found

    def grid(self, like: Tensor, images: int) -> dict[str, Tensor]:
        """The number of patches of each of ``images`` images in time, height and width, if the
        network wants it; on the device of ``like``."""
        if not self.patches:
            return {}
        side = self.size // self.vision.patch_size
        grid_U3 = torch.full((images, 3), side, device=like.device)
        grid_U3[:, 0] = 1
        return {"image_grid_thw": grid_U3}

    def _patches(self, pixels_UCSS: Tensor) -> Tensor:
        """Patches of all images, of shape (patches, values), in the order of Qwen's processors:
        those of one token side by side, each repeated in time."""
        patch, times = self.vision.patch_size, self.vision.temporal_patch_size
        tokens = self.size // patch // self.merge
        shape = (-1, 3, tokens, self.merge, patch, tokens, self.merge, patch)
        apart = pixels_UCSS.reshape(shape).permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :]
        return apart.expand(*apart.shape[:-3], times, -1, -1).flatten(0, 4).flatten(1)


class Inputs:
    """Tokenizer, image processor and prompt of a model folder."""

    def __init__(self, path: Path, config: Any, size: int, called: str) -> None:
        """Read the folder's tokenizer and processors.

        Raises:
            BadInput: one is missing, or the chat template does not show image and question.
        """
        local: Any = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, **local)
            images: Any = AutoImageProcessor.from_pretrained(path, **local)
            processor = _processor(path, config.model_type, images, self.tokenizer)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError) as error:
            said = " ".join(str(error).split())[:300]
            raise BadInput(
                f"the tokenizer or processor of {called} can't be read ({said}); "
                "give back its files"
            ) from error
        self.image: int = config.image_token_id
        self.mean, self.deviation = images.image_mean, images.image_std
        self.scale: float = images.rescale_factor
        self.prompt = ImagePrompt(
            called=called,
            model_type=config.model_type,
            tokenizer=self.tokenizer,
            image=self.image,
            word=processor.image_token,
            written=_written(processor, images, size),
            template=self.tokenizer.chat_template or processor.chat_template,
        )
        self.run = self.prompt.run(self.image, called)
        """Tokens that stand for an image, from the first to the last."""
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.prompt.end if pad is None else pad

    def pixels(self, images_USSC: np.ndarray[Any, Any] | None) -> Tensor:
        """Normalise RGB images of 0 to 255, as the folder's processor does; (U, 3, S, S)."""
        if images_USSC is None:
            return torch.empty(0, 3, 0, 0)
        pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float().mul_(self.scale)
        pixels_UCSS -= torch.tensor(self.mean).view(3, 1, 1)
        pixels_UCSS /= torch.tensor(self.deviation).view(3, 1, 1)
        return pixels_UCSS.contiguous()

    def shortened(self, question: Sequence[int]) -> tuple[int, ...]:
        """A question with one token in place of those that stand for its image."""
        first = question.index(self.image)
        return (*question[: first + 1], *question[first + len(self.run) :])

    def expanded(self, question: Sequence[int]) -> tuple[int, ...]:
        """The inverse of ``shortened``."""
        first = question.index(self.image)
        return (*question[:first], *self.run, *question[first + 1 :])


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
    Where a template can have the model think first, it is asked not to.

    Raises:
        BadInput: the template does not show image and question, once each, or refuses the system
            message.
    """
    said = "{answer}"
    for user, told in messages(word, system):
        asked = [*told, user]
        text = rendered(
            tokenizer, template, asked, add_generation_prompt=True, enable_thinking=False
        )
        if not shows(text, word, told):
            continue
        parts = not isinstance(user["content"], str)
        answer = {
            "role": "assistant",
            "content": [{"type": "text", "text": said}] if parts else said,
        }
        whole = rendered(
            tokenizer,
            template,
            [*asked, answer],
            add_generation_prompt=False,
            enable_thinking=False,
        )
        whole = whole or ""
        before, found, after = whole.partition(said)
        blank = "" if text[-1].isspace() else " "
        between = before.removeprefix(text) if before.startswith(text) else blank
        return text, between, after if found else ""
    if system:
        raise BadInput(no_system(called, TEMPLATE_WITHOUT_SYSTEM))
    raise BadInput(
        f"the chat template of {called} does not show {word} and the question, once each; mend it"
    )


def _processor(path: Path, model_type: str, images: Any, tokenizer: Any) -> Any:
    """A processor of the class that belongs to ``model_type``, without a video processor."""
    settings, _ = ProcessorMixin.get_processor_dict(path, local_files_only=True)
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

    image_token, chat_template = "[IMG]", None

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
