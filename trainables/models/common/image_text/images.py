"""Square images of one size: their size, the tokens that stand for one, and the form in which a
network of ``AutoModelForImageTextToText`` takes them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from trainables.errors import BadInput
from trainables.models.common.image_text.network import layer_read

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
        BadInput: the encoder takes no images of that size, or does not say of which.
    """
    vision, free = config.vision_config, _takes_any_size(config)
    needed = "patch_size" if free else "image_size"
    if getattr(vision, needed, None) is None:
        raise BadInput(
            f"models of type {config.model_type} can't be tuned if their vision_config has no "
            f"{needed}, as that of {called}: it is not known what square images the encoder takes"
        )
    if not free:
        own = vision.image_size
        own = own if isinstance(own, int) else own[0]
        if image_size not in (None, own):
            raise BadInput(
                f"--image-size {image_size}: {called} takes images of {own} px only; leave out "
                "--image-size"
            )
        return int(own)
    unit = vision.patch_size * _merged(config)
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
