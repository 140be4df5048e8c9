"""The stages in which a network of ``AutoModelForImageTextToText`` makes tokens of images.

Mostly there is one, ``get_image_features``: image encoder and connector. Of some classes the two
are computed apart, so that the output of a frozen encoder can be kept where only the connector is
trained. The encoder's stage ends with what the connector is given, after all that the class does
between the two, such as merging neighbouring patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainables.model_contract import Batch, Stage
from trainables.models.common.image_text.images import Layout

PRODUCT_FIRST = ("idefics3", "paligemma", "smolvlm")
"""Model types whose connector is given one tensor, begins with a matrix product, and returns the
tokens of each image."""
NORM_FIRST = ("gemma3", "internvl")
"""Model types whose connector is as theirs, but begins with an average or a norm, which do not
compute in bf16."""
Encode = Callable[[nn.Module, Batch, Tensor | None], Tensor]


def stages(
    model_type: str, layout: Layout, slots: Mapping[str, str], shared_rows: str
) -> tuple[Stage, ...]:
    """The stages of a model before its decoder.

    Args:
        model_type: the ``model_type`` of its configuration.
        layout: the form in which it takes images.
        slots: slot -> path of its module.
        shared_rows: why layers of the encoder do not get a row for each image; empty if they do.
    """

    def whole(network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        return features(network, layout.encoded(batch.pixels_UCSS))

    def encoded(network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        connector = network.get_submodule(slots["connector"])
        return given_to(connector, network, layout.encoded(batch.pixels_UCSS))

    def connected(network: nn.Module, _: Batch, image_UTD: Tensor | None) -> Tensor:
        tokens_UTD: Tensor = network.get_submodule(slots["connector"])(image_UTD)
        return tokens_UTD

    if model_type not in (*PRODUCT_FIRST, *NORM_FIRST):
        both = ("vision", "connector")
        return (Stage(slots=both, per="image", run=whole, shared_rows=shared_rows),)
    kept_whole = model_type in NORM_FIRST
    return (
        Stage(slots=("vision",), per="image", run=encoded, kept_whole=kept_whole),
        Stage(slots=("connector",), per="image", run=connected),
    )


def features(network: nn.Module, images: Mapping[str, Any]) -> Tensor:
    """Encode images and map them to the decoder's width; shape (U, T, D).

    ``images`` are arguments of ``get_image_features``. Where the encoder also gives features to the
    decoder's first layers (deepstack), D holds them one after the other.
    """
    transformers_network: Any = network
    found = transformers_network.base_model.get_image_features(**images, return_dict=True)
    parts = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
    return torch.cat([p if isinstance(p, Tensor) else torch.stack([*p]) for p in parts], dim=-1)


def given_to(connector: nn.Module, network: nn.Module, images: Mapping[str, Any]) -> Tensor:
    """Encode images up to what the connector is given, which is not run; shape (U, T, D)."""

    def end(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise _Reached(given[0])

    hook = connector.register_forward_pre_hook(end)
    try:
        features(network, images)
    except _Reached as reached:
        return reached.given
    finally:
        hook.remove()
    raise AssertionError("the network makes features of images without its connector")


class _Reached(Exception):
    """The connector has been reached."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given
