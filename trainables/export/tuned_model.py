"""Tuned models: a base with what a trial trained, to answer questions without data or optimizer.

A tuned model is stored as two files: ``tuned.json`` (base model, recipe, seed) and
``trained.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables import model_lookup, recipe
from trainables.cache import regular_file
from trainables.data.common.images import load_images
from trainables.data.common.multiple_choice import WAYS
from trainables.errors import BadInput
from trainables.export import tuned_json
from trainables.export.tuned_json import Description
from trainables.model_contract import answer_room
from trainables.models.common import model_identity
from trainables.recipe import Recipe
from trainables.weight_sharing import share_weights
from trainables.workload import WorkloadConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainables.model_contract import Batch, Model
    from trainables.recipe import AppliedRecipe

WEIGHTS = "trained.safetensors"


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """A tuned network on a resident base."""

    model: Model
    network: nn.Module
    recipe: Recipe
    applied: AppliedRecipe
    described: Description

    def answers(
        self, image: Path, questions: Sequence[str], options: Sequence[str] = ()
    ) -> list[str]:
        """Answer questions about an image file, each with the same ``options`` if there are some,
        as the model was asked in training: with an answer that it writes or, where the study chose
        by likelihood, with the likeliest option.

        Raises:
            BadInput: the image can't be read, or a question is too long with its options.
        """
        images_1SSC = load_images([image], self.model.image_size)
        wording = self.described.asking.wording(options)
        device = next(self.network.parameters()).device

        def batch_of(question_answers: Sequence[tuple[str, str]]) -> Batch:
            rows = [
                self.model.tokenize(question=q, answer=a, image=0, wording=wording)
                for q, a in question_answers
            ]
            room = answer_room(self.model, rows)
            needed = max(self.described.answer_tokens, *(len(row.answer) for row in rows))
            if room is not None and room < needed:
                raise BadInput(
                    f"{self.model.name} has positions for {room} tokens after the longest question "
                    f"with its image, options and prompt, but an answer may have {needed}; ask a "
                    "shorter question"
                )
            return self.model.collate(rows, images_1SSC).to(device)

        low = self.described.precision == "bf16"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            if not options or self.described.choose != "likelihood":
                return self.model.answers(
                    self.network,
                    batch_of([(q, "") for q in questions]),
                    tokens=self.described.answer_tokens,
                    beams=self.described.beams,
                )
            choices = WAYS[self.described.options](options)
            found = []
            for q in questions:
                batch = batch_of([(q, choice) for choice in choices])
                losses_B = self.model.losses(self.network, batch, summed=True)
                found.append(choices[int(losses_B.argmin())])
            return found

    def save(self, folder: Path) -> None:
        """Write ``trained.safetensors`` and ``tuned.json`` into ``folder``, which must exist."""
        save_file(self.weights(), folder / WEIGHTS)
        tuned_json.write(folder, self.described)

    def weights(self) -> dict[str, Tensor]:
        """Trained weights by name in the network, on the CPU."""
        return {n: p.detach().cpu().contiguous() for n, p in self.applied.parameters.items()}


def build(
    described: Description, weights: Mapping[str, Tensor], model: Model | None = None
) -> TunedModel:
    """Load the base, apply the recipe to it and set the trained values.

    ``model`` is the base if it is loaded already; it is not changed.

    Raises:
        BadInput: the base does not exist or is another one, or the values are not the recipe's.
    """
    if model is None:
        model = base(described)
    _, folder = model_lookup.family_of(described.model)
    digest = model_identity.digest_like(described.digest, model, folder)
    if digest != described.digest:
        raise BadInput(
            f"model {described.model} is not the one that was tuned (its digest is "
            f"{digest[:12]}, not {described.digest[:12]}): its weights, configuration, tokenizer, "
            "prompt or image processing have changed; give back its files"
        )
    found = Recipe.from_plain(described.recipe)
    network = share_weights(model.network)
    applied = recipe.apply(found, model, network, seed=described.seed)
    shapes = {name: parameter.shape for name, parameter in applied.parameters.items()}
    if wrong := sorted(
        name
        for name in {*weights, *shapes}
        if name not in weights or weights[name].shape != shapes.get(name)
    ):
        raise BadInput(f"the trained weights are not those of {found}: {', '.join(wrong[:3])}, ...")
    for name, value in weights.items():
        if not (value.is_floating_point() and bool(value.isfinite().all())):
            raise BadInput(f"the trained weight {name} has values that no training leaves")
    with torch.no_grad():
        for name, parameter in applied.parameters.items():
            parameter.copy_(weights[name])
    network.eval().requires_grad_(False)
    return TunedModel(
        model=model, network=network, recipe=found, applied=applied, described=described
    )


def base(described: Description) -> Model:
    """Load the base model onto the device."""
    config = WorkloadConfig(
        model=described.model,
        image_size=described.image_size,
        precision=described.precision,
        base_bits=described.base_bits,
    )
    model, _ = config.load_model()
    return model


def load(folder: Path) -> TunedModel:
    """Load a tuned model that ``TunedModel.save`` wrote.

    Raises:
        BadInput: a file is missing or damaged; see also ``build``.
    """
    described = tuned_json.read(folder)
    file = folder / WEIGHTS
    try:
        regular_file.check(file)
        weights = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadInput(
            f"{folder} holds no exported model: {file} can't be read ({said}); see study.export"
        ) from error
    return build(described, weights)
