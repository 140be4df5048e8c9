"""A tuned model as peft and transformers load it: ``PeftModel.from_pretrained(base, folder)``.

A recipe's methods are put into each slot apart; peft wants one adapter for a whole model, or
several one after another. Slots whose settings agree become one adapter, otherwise each slot has
its own, in a folder of its name. A family may know the parts of a network by names of its own; what
is written has those of transformers. It is loaded again by peft and must give the same losses.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from trainables.fork import fork
from trainables.methods import select
from trainables.tuned import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainables.tuned import Tuned

SELECTORS = ("target_modules", "feedforward_modules")
"""Fields of peft's configurations that hold a regular expression on module names."""
WHOLE = "default"
"""Name of the adapter where there is but one."""
BASE = "base.safetensors"
"""Trained weights of the base itself, where transformers has other names for them."""
SAME = 1e-5
"""Relative difference of losses up to which two networks are one."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What of a tuned model others can load: both, if there are both, make the whole of it."""

    network: str = ""
    """The class in transformers that it belongs into; empty if nothing was written."""
    adapters: Mapping[str, Path]
    """Name -> folder, for peft."""
    weights: Path | None = None
    """File with those of the base's own weights that were trained, for ``load_state_dict``."""


NOTHING = Written(adapters={})


def write(tuned: Tuned, folder: Path) -> Written:
    """Write what of a tuned model is peft's or transformers', beside what ``Tuned.save`` wrote.

    Nothing, if they can't load it so that it answers as it did: then only this project's own form
    holds the model.
    """
    network = fork(tuned.model.network)
    ours = {id(module): name for name, module in network.named_modules()}
    base = tuned.model.to_transformers(network)
    if base is None:
        return NOTHING
    # The modules are the same objects in both: name here -> name there.
    names = {ours[id(m)]: name for name, m in base.named_modules() if id(m) in ours}
    adapters: dict[str, Path] = {}
    for name, config in _merged(_configs(tuned, names)).items():
        adapters[name] = folder if name == WHOLE else folder / f"adapter-{name}"
        _save(tuned, names, config, adapters[name])
    there = dict(base.named_parameters())
    weights = {n: w for n, w in _renamed(tuned.weights(), names).items() if n in there}
    if _same(tuned, weights, adapters):
        own = weights.keys() <= tuned.applied.parameters.keys()  # then the whole file will do
        if not own:
            save_file(weights, folder / BASE)
        return Written(
            network=type(base).__name__,
            adapters=adapters,
            weights=(folder / (WEIGHTS if own else BASE)) if weights else None,
        )
    for place in adapters.values():
        for file in place.glob("adapter_*"):
            file.unlink()
        if place != folder:
            place.rmdir()
    return NOTHING


def load(network: nn.Module, weights: Mapping[str, Tensor], places: Iterable[Path]) -> nn.Module:
    """A base network with those of its own weights that were trained, and with peft's adapters."""
    from peft import PeftModel

    network.load_state_dict(weights, strict=False, assign=True)  # a fork's memory is the base's
    with warnings.catch_warnings():
        # Of one adapter beside another peft says that its layers lack the other's values.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        for place in places:
            network = PeftModel.from_pretrained(network, str(place)).get_base_model()
    return network.eval()


# --- Parts of it ----------------------------------------------------------------------------------


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same by transformers' names; an adapter's are those of the layer that it is in."""

    def renamed(name: str) -> str:
        module, _, rest = name.rpartition(".")
        while module not in names:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}"
        return f"{names[module]}.{rest}".removeprefix(".")

    return {renamed(name): weight for name, weight in weights.items()}


def _configs(tuned: Tuned, names: Mapping[str, str]) -> dict[str, Any]:
    """Slot -> peft's configuration of what it has put there, its modules named as transformers
    does."""
    found = {}
    for slot, path in tuned.model.slots.items():
        there = getattr(tuned.network.get_submodule(path), "peft_config", None)
        if not isinstance(there, dict) or "default" not in there:
            continue
        config = copy.deepcopy(there["default"])
        within = {n.removeprefix(f"{path}."): n for n in names if n.startswith(f"{path}.")}
        for field in SELECTORS:
            if isinstance(pattern := getattr(config, field, None), str):
                chosen = [names[whole] for n, whole in within.items() if re.fullmatch(pattern, n)]
                setattr(config, field, select.pattern(chosen))
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


def _save(tuned: Tuned, names: Mapping[str, str], config: Any, folder: Path) -> None:
    """One adapter, by peft's own hand, with the trained values."""
    from peft import get_peft_model

    # peft 0.21 asks by its old name whether checkpointing is on; its users can't mend that.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    trained = _renamed(tuned.weights(), names)
    base: Any = tuned.model.to_transformers(fork(tuned.model.network))
    made = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in made.get_base_model().named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
    made.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in


def _same(tuned: Tuned, weights: Mapping[str, Tensor], places: Mapping[str, Path]) -> bool:
    """Whether peft's model has the losses of the tuned one, on noise and on any words."""
    model = tuned.model
    size = model.image_size
    noise_1SSC = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    asked = [("is this normal ?", "yes"), ("what organ is shown ?", "the liver")]
    rows = [model.tokenize(question=q, answer=a, image=0) for q, a in asked]
    device = next(tuned.network.parameters()).device
    batch = model.collate(rows, noise_1SSC).to(device)
    base: Any = model.to_transformers(fork(model.network))
    there = {name: weight.to(device) for name, weight in weights.items()}
    low = tuned.described.precision == "bf16"
    try:
        loaded: Any = load(base, there, places.values())
    except (ValueError, KeyError, RuntimeError):
        return False
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=low):
        theirs = model.losses(model.from_transformers(loaded), batch)
        ours = model.losses(tuned.network, batch)
    return bool(torch.allclose(theirs, ours, rtol=SAME, atol=SAME))
