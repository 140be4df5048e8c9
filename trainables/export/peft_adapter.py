"""Writes a tuned model so that peft can load it: ``PeftModel.from_pretrained(base, folder)``.

A recipe applies a method to each slot separately. peft wants one adapter for a whole model, or
several that are loaded one after another. Slots whose settings agree become one adapter; otherwise
each slot has its own, in a folder of its name. A family may have its own names for the parts of a
network; the files have those of transformers. What was written is loaded again by peft and must
give the same losses.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from trainables.export.tuned_model import WEIGHTS
from trainables.methods.common import select
from trainables.shared_layers.quantised_linear import QuantisedLinear
from trainables.weight_sharing import share_weights

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.export.tuned_model import TunedModel

SELECTORS = ("target_modules", "feedforward_modules")
"""Fields of peft's configurations that hold a regular expression on module names."""
PATTERNS = ("rank_pattern", "alpha_pattern")
"""Fields of peft's configurations with a value for each regular expression on module names."""
WHOLE = "default"
"""Name of the adapter if there is only one."""
BASE = "base.safetensors"
"""File of trained weights of the base itself, where transformers has other names for them."""
SAME = 1e-5
"""Difference of losses, relative or absolute, up to which two networks count as equal."""


@dataclass(frozen=True, kw_only=True)
class PeftFiles:
    """Files of a tuned model that other libraries can load. If there are adapters and weights, only
    both together are the whole model."""

    network: str = ""
    """Class of transformers that the files belong to; empty if nothing was written."""
    adapters: Mapping[str, Path]
    """Folder of each adapter for peft, by name."""
    weights: Path | None = None
    """File with those of the base's own weights that were trained, for ``load_state_dict``."""
    skipped: tuple[str, ...] = ()
    """Modules of the network that hold linear layers and none in four bits, for
    ``llm_int8_skip_modules`` of transformers' ``BitsAndBytesConfig``; empty if the base is not
    quantised."""


NOTHING = PeftFiles(adapters={})


def write(tuned: TunedModel, folder: Path) -> PeftFiles:
    """Write what peft or transformers can load of a tuned model, beside the project's own files.

    Nothing is written if they can't load the model so that it answers as before. Then only the
    files of ``TunedModel.save`` hold it.
    """
    network = share_weights(tuned.model.network)
    ours = {id(part): name for name, part in _parts(network)}
    base = tuned.model.to_transformers(network)
    if base is None:
        return NOTHING
    # Both networks have the same objects: our name -> transformers' name.
    names = {ours[id(part)]: name for name, part in _parts(base) if id(part) in ours}
    adapters: dict[str, Path] = {}
    for name, config in _merged(_configs(tuned, names)).items():
        adapters[name] = folder if name == WHOLE else folder / f"adapter-{name}"
        _save(tuned, names, config, adapters[name])
    there = dict(base.named_parameters())
    skipped = tuple(_skipped(base)) if tuned.described.base_bits else ()
    weights = {n: w for n, w in _renamed(tuned.weights(), names).items() if n in there}
    if _same(tuned, weights, adapters):
        # If the names agree, the file of ``TunedModel.save`` will do.
        own = weights.keys() <= tuned.applied.parameters.keys()
        if not own:
            save_file(weights, folder / BASE)
        return PeftFiles(
            network=type(base).__name__,
            adapters=adapters,
            weights=(folder / (WEIGHTS if own else BASE)) if weights else None,
            skipped=skipped,
        )
    for place in adapters.values():
        for file in place.glob("adapter_*"):
            file.unlink()
        if place != folder:
            place.rmdir()
    return NOTHING


def load(network: nn.Module, weights: Mapping[str, Tensor], places: Iterable[Path]) -> nn.Module:
    """Load trained weights of the base itself, and peft's adapters, into a base network."""
    from peft import PeftModel

    # Assigned, not copied: the network's memory is the base's.
    network.load_state_dict(weights, strict=False, assign=True)
    with warnings.catch_warnings():
        # For one adapter beside another, peft warns that its layers lack the other's values.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        for place in places:
            network = PeftModel.from_pretrained(network, str(place)).get_base_model()
    return network.eval()


def _skipped(network: nn.Module) -> Iterator[str]:
    """Names of the largest modules that hold linear layers and none in four bits. No name is the
    beginning of a layer's that is in four bits, which older versions of transformers would skip,
    too; where a module's would be, its parts are named."""
    quantised = [n for n, m in network.named_modules() if type(m) is QuantisedLinear]

    def found(module: nn.Module, name: str) -> Iterator[str]:
        if isinstance(module, nn.Linear):
            if type(module) is not QuantisedLinear:
                yield name
        elif any(layer.startswith(name) for layer in quantised):
            for child, part in module.named_children():
                yield from found(part, f"{name}.{child}" if name else child)
        elif any(isinstance(part, nn.Linear) for part in module.modules()):
            yield name

    yield from found(network, "")


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Modules and parameters of a network, by name. A family may hold a parameter in another module
    than transformers does."""
    yield from network.named_modules()
    yield from network.named_parameters()


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights by transformers' names; an adapter's are named after the layer that holds it."""

    def renamed(name: str) -> str:
        if name in names:
            return names[name]
        module, _, rest = name.rpartition(".")
        while module not in names:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}"
        return f"{names[module]}.{rest}".removeprefix(".")

    return {renamed(name): weight for name, weight in weights.items()}


def _configs(tuned: TunedModel, names: Mapping[str, str]) -> dict[str, Any]:
    """peft's configuration of each slot that has one, with modules named as in transformers."""
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
        for field in PATTERNS:
            of_each = {
                select.exactly(names[whole]): value
                for pattern, value in (getattr(config, field, None) or {}).items()
                for n, whole in within.items()
                if re.fullmatch(pattern, n)
            }
            if of_each:
                setattr(config, field, of_each)
        config.inference_mode = True
        found[slot] = config
    return found


def _merged(configs: Mapping[str, Any]) -> dict[str, Any]:
    """One configuration if all agree in everything but the modules, else one for each slot."""

    def rest(config: Any) -> str:
        plain = {k: v for k, v in config.to_dict().items() if k not in SELECTORS + PATTERNS}
        return repr((type(config), sorted(plain.items(), key=str)))

    if len({rest(config) for config in configs.values()}) != 1:
        return dict(configs)
    one = copy.deepcopy(next(iter(configs.values())))
    for field in SELECTORS:
        patterns = [p for c in configs.values() if isinstance(p := getattr(c, field, None), str)]
        if patterns:
            setattr(one, field, "|".join(patterns))
    for field in PATTERNS:
        of_each = [getattr(c, field, None) or {} for c in configs.values()]
        if any(of_each):
            setattr(one, field, {k: v for each in of_each for k, v in each.items()})
    return {WHOLE: one}


def _save(tuned: TunedModel, names: Mapping[str, str], config: Any, folder: Path) -> None:
    """Write one adapter with the trained values, by peft's own ``save_pretrained``."""
    from peft import get_peft_model

    # peft 0.21 asks by a deprecated name whether activation checkpointing is on.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    trained = _renamed(tuned.weights(), names)
    base: Any = tuned.model.to_transformers(share_weights(tuned.model.network))
    made = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in made.get_base_model().named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
    made.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a template to be filled in


def _same(tuned: TunedModel, weights: Mapping[str, Tensor], places: Mapping[str, Path]) -> bool:
    """Whether peft's model has the losses of the tuned model, on noise and arbitrary words."""
    model = tuned.model
    size = model.image_size
    noise_1SSC = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    asked = [("is this normal ?", "yes"), ("what organ is shown ?", "the liver")]
    rows = [model.tokenize(question=q, answer=a, image=0) for q, a in asked]
    device = next(tuned.network.parameters()).device
    batch = model.collate(rows, noise_1SSC).to(device)
    base: Any = model.to_transformers(share_weights(model.network))
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
