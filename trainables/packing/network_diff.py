"""Finds where a trial's network differs from the base that it shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.methods.common import virtual_tokens
from trainables.model_contract import is_norm


class Unpackable(Exception):
    """A trial that can't be in a pack; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Differences between a trial's network and the base."""

    modules: Mapping[str, nn.Module]
    """The trial's own modules, by path; at all other paths it uses the base's."""
    virtual_tokens: Mapping[str, virtual_tokens.VirtualTokens]
    """Virtual tokens to renew before a slot runs, by the path of the slot's module."""


def differences(base: nn.Module, network: nn.Module) -> Differences:
    """Find where ``network``, a weight-sharing copy of ``base`` with a recipe in it, differs.

    Raises:
        Unpackable: a difference is not in a layer whose rows are independent of one another.
    """
    modules: dict[str, nn.Module] = {}
    tokens: dict[str, virtual_tokens.VirtualTokens] = {}
    aliases: list[tuple[str, nn.Parameter]] = []

    def walk(path: str, shared: nn.Module, own: nn.Module) -> None:
        if isinstance(shared, nn.Linear | nn.Conv2d | nn.Conv3d) or is_norm(shared):
            if _differs(shared, own):
                modules[path] = own
            return
        if type(own) is not type(shared) or "forward" in vars(own):
            raise Unpackable(f"{path} is a {type(own).__name__}")
        hooks = _added_hooks(shared, own)
        if hooks and not all(virtual_tokens.is_hook(hook) for hook in hooks):
            raise Unpackable(f"{path} has a hook")
        added = own._modules.get("virtual_tokens")
        if isinstance(added, virtual_tokens.VirtualTokens):
            tokens[path] = added
        elif hooks:
            modules[path] = own
            return
        for parameter in own.parameters(recurse=False):
            if parameter.requires_grad:
                aliases.append((path, parameter))
        for name, child in own.named_children():
            if name == "virtual_tokens" and path in tokens:
                continue
            if name not in shared._modules:
                raise Unpackable(f"{path} has a {type(child).__name__}")
            walk(f"{path}.{name}" if path else name, shared.get_submodule(name), child)

    walk("", base, network)
    for path, parameter in aliases:
        # Allowed only if it is tied to a parameter of a layer below, which is the one that uses it.
        below = (m for p, m in modules.items() if p.startswith(f"{path}."))
        if not any(parameter is other for module in below for other in module.parameters()):
            raise Unpackable(f"{path} trains a parameter of its own")
    return Differences(modules=modules, virtual_tokens=tokens)


def _differs(shared: nn.Module, own: nn.Module) -> bool:
    trains = any(parameter.requires_grad for parameter in own.parameters())
    return trains or type(own) is not type(shared) or bool(_added_hooks(shared, own))


def _added_hooks(shared: nn.Module, own: nn.Module) -> list[Any]:
    """Hooks of a trial's module that the base's module lacks. A method's hooks come after the
    base's."""
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return [
        hook
        for kind in kinds
        for hook in list(getattr(own, kind).values())[len(getattr(shared, kind)) :]
    ]
