"""Records each allocation of tensor memory while some code runs: its size, beginning and end.

A dispatch mode sees each operation and the storages of its results; a weak reference tells when a
storage is freed. It works on real tensors and on fake ones (``FakeTensorMode``), which have shapes
and lifetimes but no memory. So a training step of a model that would not fit can be followed on any
machine. Memory that an operation takes and frees inside itself is not seen.

(``torch.distributed._tools.mem_tracker`` has the same idea. It groups memory by module or by kind,
but does not tell what autograd keeps of each part of a model. It also reads all modules again after
every operation, which takes minutes for a large model.)
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(eq=False, kw_only=True)
class Allocation:
    """A storage of tensor memory. The clock of its times counts allocations and frees."""

    size: int
    """Size in bytes."""
    allocated: int
    """Time at which the storage was allocated."""
    freed: int | None = None
    """Time at which the storage was freed; None if it still exists."""
    label: Hashable = None
    """Value of ``Allocations.label`` when the storage was allocated."""

    def alive_at(self, time: int) -> bool:
        """Whether the storage exists at ``time``."""
        return self.allocated <= time and (self.freed is None or self.freed > time)


class Allocations(TorchDispatchMode):
    """Dispatch mode that records the storage of each result, with the current ``label``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.all: list[Allocation] = []
        self.label: Hashable = None
        self.time = 0
        self._living: dict[int, tuple[Allocation, weakref.ref[Any]]] = {}
        self._paused = False

    def find(self, tensor: Tensor) -> Allocation:
        """Find the allocation that holds ``tensor``; an unknown one is recorded now."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._living:
            return self._living[key][0]
        self.time += 1
        taken = Allocation(size=storage.nbytes(), allocated=self.time, label=self.label)
        gone = weakref.ref(storage, partial(self._free, key))
        self._living[key] = (taken, gone)
        self.all.append(taken)
        return taken

    def peak(self) -> int:
        """Time at which most memory is allocated."""
        changes = [0] * (self.time + 2)
        for allocation in self.all:
            changes[allocation.allocated] += allocation.size
            if allocation.freed is not None:
                changes[allocation.freed] -= allocation.size
        most, peak, total = -1, 0, 0
        for time, change in enumerate(changes):
            total += change
            if total > most:
                most, peak = total, time
        return peak

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing inside the block."""
        self._paused = True
        yield
        self._paused = False

    def _free(self, key: int, _: weakref.ref[Any]) -> None:
        allocation, _ = self._living.pop(key)
        self.time += 1
        allocation.freed = self.time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused:
            for leaf in tree_iter(result):
                if isinstance(leaf, Tensor):
                    self.find(leaf)
        return result
