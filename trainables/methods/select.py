"""Which layers and parameters of a slot a method takes, by module type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainables.errors import BadInput, NothingThere, unknown

if TYPE_CHECKING:
    from trainables.models.contract import Slot


def modules(slot: Slot, roles: Iterable[str]) -> list[str]:
    """Names of the modules of ``slot`` that play one of ``roles``.

    Raises:
        NothingThere: none does; the message names the roles there are.
        BadInput: there is no such role.
    """
    from trainables.models.contract import ROLES

    roles = tuple(roles)
    for role in roles:
        if role not in ROLES:
            raise unknown("role", role, ROLES)
    found = [name for role in roles for name in slot.roles.get(role, ())]
    if not found:
        there = ", ".join(sorted(slot.roles)) or "none"
        lacks = ", ".join(roles)
        raise NothingThere(
            f"slot {slot.name!r} has no layer of {lacks}; it has: {there}", lacks=lacks
        )
    return found


def linear(slot: Slot, method: str, roles: Iterable[str]) -> list[str]:
    """Names of the modules that play one of ``roles``, for a method that only knows linear layers.

    Raises:
        BadInput: none plays it, or one that does is of another type.
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
    """Names of all parameters of the modules of ``slot`` that play one of ``roles``."""
    wanted = set(modules(slot, roles))
    return [n for n, _ in slot.module.named_parameters() if n.rpartition(".")[0] in wanted]


def nothing(slot: Slot, what: str) -> NothingThere:
    """The error of a slot that lacks ``what``, with the layers that it has."""
    layers = {type(m).__name__ for m in slot.module.modules() if not list(m.children())}
    return NothingThere(
        f"slot {slot.name!r} has no {what}; its layers are: {', '.join(sorted(layers))}",
        lacks=what,
    )


def adapters(slot: Slot) -> list[str]:
    """Names of what peft has put into ``slot``: in a fork, only that requires a gradient."""
    return [name for name, p in slot.module.named_parameters() if p.requires_grad]


def pattern(names: Iterable[str]) -> str:
    """A regular expression for peft that matches these module names and no other.

    (A list of names would be matched as suffixes.)
    """
    return "|".join(re.escape(name) for name in names) or "(?!)"
