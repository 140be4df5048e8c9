"""Holds a base in four bits: the linear layers of the slots whose weights no trial trains.

All trials share one base, so what one of them trains in full stays as it is for all. Of the other
slots, the layers with a role (``trainables.methods.common.roles``) are quantised: they are called
as modules, whatever the family. Embeddings and the head that writes words have none. What a model's
class in transformers keeps in fp32, as BLIP-2's Q-Former, stays as it is too, since there it is not
quantised when an export is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.errors import BadInput
from trainables.methods.common.roles import GROUPS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.model_contract import Model, Structure

PACKAGE = "bitsandbytes"
"""Package that has the kernels."""


@dataclass(frozen=True, kw_only=True)
class BaseBits:
    """How a base is quantised."""

    bits: int = 4
    """Bits of a value: 4."""
    whole: tuple[str, ...] = ()
    """Slots that are not quantised, since a trial trains their weights."""

    def check(self) -> None:
        """Check the number of bits, and that the package is installed, without importing it.

        Raises:
            BadInput: the base can't be held in so many bits, or not here.
        """
        if self.bits == 8:
            raise BadInput(
                "--base-bits 8 is not done: bitsandbytes' int8 layers choose outliers among all "
                "rows of a batch, so that a question's loss would depend on its batch; give 4"
            )
        if self.bits != 4:
            raise BadInput(f"--base-bits must be 4, got {self.bits}")
        if importlib.util.find_spec(PACKAGE) is None:
            raise BadInput(
                f"--base-bits 4 needs the package {PACKAGE}, which is not installed: pip install "
                f"{PACKAGE}, or leave the option away"
            )


@dataclass(frozen=True, kw_only=True)
class SlotBits:
    """Linear layers of a slot, by whether they are in four bits."""

    slot: str
    quantised: int
    """Number of linear layers in four bits."""
    left: tuple[str, ...]
    """Names in the slot of its other linear layers."""
    experts: bool = False
    """Whether it holds weights of several experts at once, which are no linear layers."""
    kept: bool = False
    """Whether it is not quantised because transformers keeps it in fp32."""


def quantise(model: Structure, bits: BaseBits, device: torch.device | None = None) -> None:
    """Quantise the base of a model in place, layer by layer, on ``device`` if one is given.

    Raises:
        BadInput: no slot has a layer that can be quantised, or bitsandbytes does not compute on the
            device; see also ``BaseBits.check``.
    """
    bits.check()
    from torch import nn

    from trainables.shared_layers.quantised_linear import QuantisedLinear, check_kernels

    if device is not None:
        check_kernels(device)
    for slot, path in model.slots.items():
        if slot in bits.whole or _kept(model, path):
            continue
        module = model.network.get_submodule(path)
        chosen = {id(module.get_submodule(name)) for name in _layers(model, slot)}
        made: dict[int, nn.Module] = {}
        for parent in list(module.modules()):
            for name, child in parent._modules.items():
                if id(child) in chosen and type(child) is nn.Linear:
                    if id(child) not in made:
                        made[id(child)] = QuantisedLinear(child, device)
                    parent._modules[name] = made[id(child)]
    if not any(found.quantised for found in slot_bits(model)):
        others = ", ".join(model.slots)
        raise BadInput(
            f"--base-bits {bits.bits} finds nothing to quantise in {model.name}: arms train the "
            f"weights of its slots ({others}), or they have no linear layers; leave such arms out "
            "by --arm"
        )


def slot_bits(model: Structure) -> tuple[SlotBits, ...]:
    """What is in four bits in each slot of a model."""
    from torch import nn

    from trainables.methods.common.layers import stacked_weights
    from trainables.shared_layers.quantised_linear import QuantisedLinear

    found = []
    for slot, path in model.slots.items():
        linear = {
            name: isinstance(module, QuantisedLinear)
            for name, module in model.network.get_submodule(path).named_modules()
            if isinstance(module, nn.Linear)
        }
        left = tuple(name for name, quantised in linear.items() if not quantised)
        experts = bool(stacked_weights(model.network.get_submodule(path)))
        found.append(
            SlotBits(
                slot=slot,
                quantised=sum(linear.values()),
                left=left,
                experts=experts,
                kept=_kept(model, path),
            )
        )
    return tuple(found)


def digest(model: Model) -> str:
    """Digest of a quantised model: of its own digest and the layers in four bits."""
    names = "\n".join(_quantised(model.network))
    return hashlib.sha256(f"{model.digest} nf4 double\n{names}".encode()).hexdigest()


def _quantised(network: nn.Module) -> Iterator[str]:
    from trainables.shared_layers.quantised_linear import QuantisedLinear

    return (n for n, module in network.named_modules() if isinstance(module, QuantisedLinear))


def _kept(model: Structure, path: str) -> bool:
    """Whether the class in transformers keeps the module at ``path`` in fp32. ``network.kind`` is
    that class, where the network is arranged otherwise here."""
    kind: Any = getattr(model.network, "kind", type(model.network))
    names = getattr(kind, "_keep_in_fp32_modules", None) or ()
    return not {*names}.isdisjoint(path.split("."))


def _layers(model: Structure, name: str) -> Sequence[str]:
    """Names in a slot of the layers with a role that linear layers play."""
    from trainables.model_contract import slot

    roles = slot(model, model.network, name).roles
    return [layer for role in GROUPS["all"] for layer in roles.get(role, ())]
