"""Losses of an image-text-to-text model on tensors without values, to predict the memory they take.

transformers looks at values to find the image's tokens, to make positions and to leave out images
that are padding, which fake tensors can't. Here the image's tokens are the first of each question,
positions are the same for all, and every image is one. Tensors have the sizes of the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from trainables.model_contract import Batch, Stage, answer_losses
from trainables.models.common.image_text.stages import features, given_to

if TYPE_CHECKING:
    from trainables.models.common.image_text.images import Layout


class Shapes:
    """Stages and losses of a model whose tensors have no values."""

    def __init__(
        self, layout: Layout, slots: dict[str, str], stages: Sequence[Stage], width: int
    ) -> None:
        self.layout, self.slots, self.width = layout, slots, width
        first, *others = stages
        self.apart = bool(others)
        """Whether the connector is a stage of its own."""
        self.stages: tuple[Stage, ...] = (replace(first, run=self._encode), *others)
        """The stages of the model, in shapes."""

    def losses(self, network: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        """Losses of shape (B,), as those of the model."""
        whole: Any = network
        image_UTD = batch.state
        for stage in self.stages[batch.done :]:
            image_UTD = stage.run(network, batch, image_UTD)
        assert image_UTD is not None
        decoder = whole.get_submodule(self.slots["decoder"])
        tokens_BT = torch.cat((batch.question_BQ, batch.answer_BA), dim=1)
        words_BTD = whole.get_input_embeddings()(tokens_BT)
        image_BTD = image_UTD[batch.image_B][..., : self.width].to(words_BTD.dtype)
        embeds_BTD = torch.cat((image_BTD, words_BTD[:, image_BTD.shape[1] :]), dim=1)
        answers = batch.answer_BA.shape[1]
        hidden_BTD = decoder(
            inputs_embeds=embeds_BTD,
            attention_mask=torch.cat((batch.question_mask_BQ, batch.answer_mask_BA), dim=1),
            position_ids=torch.arange(tokens_BT.shape[1])[None],
            use_cache=False,
        ).last_hidden_state
        logits_BAV = whole.lm_head(hidden_BTD[:, -answers - 1 : -1])
        return answer_losses(logits_BAV, batch.answer_BA, batch.answer_mask_BA, smoothing)

    def _encode(self, network: nn.Module, batch: Batch, _: Tensor | None) -> Tensor:
        """Encode the images, up to what the connector is given if that is a stage of its own; shape
        (U, T, D), with D as in the model."""
        whole: Any = network
        pixels_UCSS, layout = batch.pixels_UCSS, self.layout
        vision, connector = (whole.get_submodule(self.slots[n]) for n in ("vision", "connector"))
        images = len(pixels_UCSS)
        if layout.images:
            side = layout.size // layout.vision.patch_size
            patches_U11 = torch.ones(images, side, side, dtype=torch.bool)
            encoded = vision(pixel_values=pixels_UCSS, patch_attention_mask=patches_U11)
            found_UTD: Tensor = encoded.last_hidden_state
            return found_UTD if self.apart else connector(found_UTD)
        sizes = [(layout.size, layout.size)] * images
        if layout.sizes and not layout.tiles:
            encoded = vision(pixels_UCSS, image_sizes=sizes)
            joined_ND: Tensor = connector(encoded.last_hidden_state.squeeze(0), sizes).squeeze(0)
            joined_UTD: Tensor = joined_ND.unflatten(0, (images, -1))
            return joined_UTD
        integers: Any = IntegersWithValues
        with integers(), saved_tensors_hooks(_without_values, lambda saved: saved):
            given = layout.encoded(pixels_UCSS)
            given |= {"image_sizes": sizes} if layout.sizes else {}
            if self.apart:
                return given_to(connector, network, given)
            return features(network, given)


def _without_values(saved: Tensor) -> Tensor:
    """A tensor that is kept for the backward pass, which runs on tensors without values."""
    mode = active_fake_mode()
    if mode is None or isinstance(saved, FakeTensor):
        return saved
    without: Tensor = mode.from_tensor(saved)
    return without


class IntegersWithValues(TorchDispatchMode):
    """Within it, integers, which positions and lengths are made of, keep their values, while other
    tensors have none.

    An operation on tensors with values has one too; where one meets a tensor without, it loses its
    own.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fake = next((t for t in tensors if isinstance(t, FakeTensor)), None)
        if fake is not None:

            def without_values(leaf: Any) -> Any:
                plain = isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor)
                return fake.fake_mode.from_tensor(leaf) if plain else leaf

            args, kwargs = tree_map(without_values, (args, kwargs))
            return func(*args, **kwargs)
        if not tensors and (kwargs.get("dtype") or torch.int64).is_floating_point:
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)
