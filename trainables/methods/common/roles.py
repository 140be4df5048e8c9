"""Roles that layers play, and names for groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainables.errors import unknown

ROLES = (
    "norm",  # LayerNorm, RMSNorm
    "query",
    "key",
    "value",
    "qkv",  # query, key and value, in this order, fused in one projection
    "attention_output",
    "ffn_in",
    "ffn_out",
    "self_attention",  # the module around query, key and value; not cross-attention
    "block",  # a layer of a stack that holds a self_attention; tokens pass from block to block
    "patch",  # the convolution that turns image patches into tokens
    "projection",  # a layer between two parts of a model
)
ATTENTION = ("query", "key", "value", "qkv", "attention_output")
FFN = ("ffn_in", "ffn_out")
GROUPS = {"attention": ATTENTION, "ffn": FFN, "all": (*ATTENTION, *FFN, "projection")}
"""Name of a group -> its roles. ``all`` has all roles that linear layers play. Embeddings and the
head that writes words play none, as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314)."""


def parse(named: str | Iterable[str]) -> tuple[str, ...]:
    """The roles that a text or a tuple names, each once.

    In both, the name of a group stands for its roles. A text has names separated by ``,`` or ``+``.
    If it names ``query`` and ``value``, it also stands for ``qkv``, in which they are fused; a
    tuple stands for what it names and nothing else.

    Raises:
        BadInput: a name is that of no role and no group.

    >>> parse("query,value")
    ('query', 'value', 'qkv')
    >>> parse("query+ffn")
    ('query', 'ffn_in', 'ffn_out')
    """
    names = [*(_split(named) if isinstance(named, str) else named)]
    for name in names:
        if name not in ROLES and name not in GROUPS:
            raise unknown("role", str(name), (*ROLES, *GROUPS))
    found = [role for name in names for role in GROUPS.get(name, (name,))]
    if isinstance(named, str) and {"query", "value"} <= {*found}:
        found.append("qkv")
    return tuple(dict.fromkeys(found))


def shown(roles: tuple[str, ...]) -> str:
    """The name of the group that has these roles, or else their tuple as text."""
    return next((name for name, group in GROUPS.items() if group == roles), str(roles))


def _split(text: str) -> Iterator[str]:
    return (name.strip() for name in text.replace("+", ",").split(","))
