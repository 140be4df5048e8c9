"""Ranks, the processes that train one trial together, and how they exchange values.

Without a process group there is one rank. All functions here except ``current`` and ``set_timeout``
are collectives: all ranks call them in the same order. With gloo and a torch before 2.13,
``set_timeout`` is one too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as group

from trainables.errors import too_old

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rank of this process and number of ranks that train its trial."""

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this rank acts for all."""
        return self.rank == 0


def current() -> Ranks:
    """Rank of this process and number of ranks."""
    if not (group.is_available() and group.is_initialized()):
        return Ranks(rank=0, count=1)
    return Ranks(rank=group.get_rank(), count=group.get_world_size())


def summed(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all ranks."""
    if current().count > 1:
        tensor = tensor.clone()
        group.all_reduce(tensor)
    return tensor


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sums over all ranks, in one exchange for each data type."""
    if current().count == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for some in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in some])
        group.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in some])
        for tensor, part in zip(some, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def all_gather(value: Value) -> list[Value]:
    """Values of all ranks, in the order of ranks."""
    count = current().count
    if count == 1:
        return [value]
    values: list[Value] = [value] * count
    group.all_gather_object(values, value)
    return values


def broadcast(value: Value) -> Value:
    """Value of rank 0."""
    return all_gather(value)[0]


def barrier() -> None:
    """Wait until all ranks have called this."""
    if current().count > 1:
        group.barrier()


def set_timeout(seconds: float) -> None:
    """Set the timeout of all later collectives and process groups, which may be longer than the
    time that ranks had to find each other."""
    timeout, torchs = timedelta(seconds=seconds), group.distributed_c10d
    # A group of gloo keeps the timeout that it was made with in torch 2.6, and not in 2.13.
    if group.get_backend() == "gloo" and too_old("another timeout", "torch", "2.13") is not None:
        _make_anew(timeout)
    torchs._set_pg_timeout(timeout)
    torchs._get_default_store().set_timeout(timeout)
    # DeepSpeed makes groups of its own without a timeout: those of NCCL would have ten minutes.
    torchs.default_pg_timeout = timeout
    torchs.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]  # it is not exported


def _make_anew(timeout: timedelta) -> None:
    """Replace the default process group by one of gloo with the same ranks."""
    old, ranks = group.distributed_c10d._get_default_store(), current()
    group.destroy_process_group()
    group.init_process_group(
        "gloo",
        store=group.distributed_c10d.PrefixStore("again", old),
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=timeout,
    )
