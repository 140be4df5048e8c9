"""Selects the layers and parameters of a slot that a method acts on, by module type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainables.errors import BadInput, NoMatchingLayer, unknown
from trainables.methods.common.roles import ROLES

if TYPE_CHECKING:
    from trainables.model_contract import Slot


def modules(slot: Slot, roles: Iterable[str]) -> list[str]:
    """Names of the modules of ``slot`` that play one of ``roles``.

    Raises:
        NoMatchingLayer: no module plays one of them; the message names the roles that the slot has.
        BadInput: a role does not exist.
    """
    roles = tuple(roles)
    for role in roles:
        if role not in ROLES:
            raise unknown("role", role, ROLES)
    found = [name for role in roles for name in slot.roles.get(role, ())]
    if not found:
        there = ", ".join(sorted(slot.roles)) or "none"
        lacks = ", ".join(roles)
        raise NoMatchingLayer(
            f"slot {slot.name!r} has no layer of {lacks}; it has: {there}", lacks=lacks
        )
    return found


def linear(slot: Slot, method: str, roles: Iterable[str]) -> list[str]:
    """Names of the linear layers that play one of ``roles``, for a method that supports no others.

    Raises:
        BadInput: no module plays one of the roles, or one that does is not a linear layer.
    """
    from torch import nn

    found = modules(slot, roles)
    for name in found:
        module = slot.module.get_submodule(name)
        if not isinstance(module, nn.Linear):
            raise BadInput(
                f"{method} is for linear layers, but {name} of slot {slot.name!r} is a "
                f"{type(module).__name__}; leave its role out of targets"
            )
    return found


def parameters(slot: Slot, roles: Iterable[str]) -> list[str]:
    """Names of all parameters of the modules of ``slot`` that play one of ``roles``.

    Raises:
        NoMatchingLayer: no module plays one of the roles.
        BadInput: a role does not exist.
    """
    wanted = set(modules(slot, roles))
    return [n for n, _ in slot.module.named_parameters() if n.rpartition(".")[0] in wanted]


def nothing(slot: Slot, what: str) -> NoMatchingLayer:
    """The error for a slot that lacks ``what``; its message names the layers that the slot has."""
    layers = {type(m).__name__ for m in slot.module.modules() if not list(m.children())}
    return NoMatchingLayer(
        f"slot {slot.name!r} has no {what}; its layers are: {', '.join(sorted(layers))}",
        lacks=what,
    )


def adapters(slot: Slot) -> list[str]:
    """Names of the parameters that were added to ``slot``.

    In a trial's copy of the network, they are the only ones that require a gradient.
    """
    return [name for name, p in slot.module.named_parameters() if p.requires_grad]


def pattern(names: Iterable[str]) -> str:
    """A regular expression for peft that matches exactly these module names.

    A list of names would not do, since peft matches them as suffixes.
    """
    return "|".join(re.escape(name) for name in names) or "(?!)"


def exactly(name: str) -> str:
    """A regular expression for the keys of peft's patterns that matches this module name only.

    Without ``^``, peft would also let it match the end of a longer name.
    """
    return f"^{re.escape(name)}"
