"""A tuned model in the form that peft loads: ``peft.PeftModel.from_pretrained(base, folder)``.

A recipe's methods are put into each slot apart; peft wants one adapter for a whole model, or
several one after another. Slots whose settings agree become one adapter, otherwise each slot has
its own, in a folder of its name. What is written is loaded again by peft and must give the same
losses.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from trainables.fork import fork

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainables.tuned import Tuned

SELECTORS = ("target_modules", "feedforward_modules")
"""Fields of peft's configurations that hold a regular expression on module names."""
WHOLE = "default"
"""Name of the adapter where there is but one."""
SAME = 1e-5
"""Relative difference of losses up to which two networks are one."""


def write(tuned: Tuned, folder: Path) -> dict[str, Path]:
    """Write what of a tuned model is peft's: name of the adapter -> its folder.

    Empty if nothing is, or if peft cannot load it so that it answers as it did: then only this
    project's own form (``Tuned.save``) holds the model.
    """
    written: dict[str, Path] = {}
    if not isinstance(tuned.model.network, PreTrainedModel):  # its names are not transformers'
        return written
    for name, config in _merged(_configs(tuned)).items():
        written[name] = folder if name == WHOLE else folder / f"adapter-{name}"
        _save(tuned, config, written[name])
    if written and not _same(tuned, written):
        for place in written.values():
            for file in place.glob("adapter_*"):
                file.unlink()
            if place != folder:
                place.rmdir()
        return {}
    return written


def load(network: nn.Module, weights: Mapping[str, Tensor], places: Iterable[Path]) -> nn.Module:
    """A base network with those of its own weights that were trained, and with peft's adapters."""
    from peft import PeftModel

    network.load_state_dict(weights, strict=False, assign=True)  # a fork's memory is the base's
    for place in places:
        network = PeftModel.from_pretrained(network, str(place)).get_base_model()
    return network.eval()


def _configs(tuned: Tuned) -> dict[str, Any]:
    """Slot -> peft's configuration of what it has put there, its names made those of the whole."""
    found = {}
    for slot, path in tuned.model.slots.items():
        there = getattr(tuned.network.get_submodule(path), "peft_config", None)
        if not isinstance(there, dict) or "default" not in there:
            continue
        config = copy.deepcopy(there["default"])
        for field in SELECTORS:
            if isinstance(pattern := getattr(config, field, None), str):
                setattr(config, field, rf"{path}\.(?:{pattern})")
        config.base_model_name_or_path = getattr(tuned.model.network, "name_or_path", None)
        config.inference_mode = True
        found[slot] = config
    return found


def _merged(configs: Mapping[str, Any]) -> dict[str, Any]:
    """One configuration where all agree in everything but the modules."""

    def rest(config: Any) -> str:
        plain = {k: v for k, v in config.to_dict().items() if k not in SELECTORS}
        return repr((type(config), sorted(plain.items(), key=str)))

    if len({rest(config) for config in configs.values()}) != 1:
        return dict(configs)
    one = copy.deepcopy(next(iter(configs.values())))
    for field in SELECTORS:
        patterns = [p for c in configs.values() if isinstance(p := getattr(c, field, None), str)]
        if patterns:
            setattr(one, field, "|".join(patterns))
    return {WHOLE: one}


def _save(tuned: Tuned, config: Any, folder: Path) -> None:
    """One adapter, by peft's own hand, with the trained values."""
    from peft import get_peft_model

    # peft 0.21 asks by its old name whether checkpointing is on; its users can't mend that.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    trained = dict(tuned.network.named_parameters())
    made = get_peft_model(fork(tuned.model.network), config)
    with torch.no_grad():
        for name, parameter in made.get_base_model().named_parameters():
            if name in tuned.applied.parameters:
                parameter.copy_(trained[name])
    made.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in


def _same(tuned: Tuned, places: Mapping[str, Path]) -> bool:
    """Whether peft's model has the losses of the tuned one, on noise and on any words."""
    model = tuned.model
    size = model.image_size
    noise_1SSC = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    asked = [("is this normal ?", "yes"), ("what organ is shown ?", "the liver")]
    rows = [model.tokenize(question=q, answer=a, image=0) for q, a in asked]
    batch = model.collate(rows, noise_1SSC)
    try:
        loaded = load(fork(model.network), tuned.weights(), places.values())
    except (ValueError, KeyError, RuntimeError):
        return False
    with torch.no_grad():
        theirs = model.losses(loaded, batch)
        ours = model.losses(tuned.network, batch)
    return bool(torch.allclose(theirs, ours, rtol=SAME, atol=SAME))
