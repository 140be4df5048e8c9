"""Every piece of memory that tensors take while some code runs: how much, from when to when.

A dispatch mode sees each operation and the storages of its results; a weak reference tells when one
is gone. It works on real tensors and on fake ones (``FakeTensorMode``), which have shapes and
lifetimes but no memory: with those, a training step of a model that would not fit can be followed
on any machine. What an operation takes and frees inside itself is not seen.

(``torch.distributed._tools.mem_tracker`` has the same idea. It files memory by module or by kind,
but not what autograd keeps of each part of a model, and it reads all modules again after every
operation, which takes minutes for a large one.)
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
    """A storage. Times count takings and givings back."""

    size: int
    """Bytes."""
    born: int
    died: int | None = None
    during: Hashable = None
    """What ``Allocations.now`` was when it was taken."""

    def lives(self, time: int) -> bool:
        """It was there at that time."""
        return self.born <= time and (self.died is None or self.died > time)


class Allocations(TorchDispatchMode):
    """Within it, each storage of a result is noted. ``now`` says what is going on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.all: list[Allocation] = []
        self.now: Hashable = None
        self.time = 0
        self._living: dict[int, tuple[Allocation, weakref.ref[Any]]] = {}
        self._paused = False

    def of(self, tensor: Tensor) -> Allocation:
        """The allocation that holds ``tensor``, noted as of now if it was not known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._living:
            return self._living[key][0]
        self.time += 1
        taken = Allocation(size=storage.nbytes(), born=self.time, during=self.now)
        gone = weakref.ref(storage, partial(self._free, key))
        self._living[key] = (taken, gone)
        self.all.append(taken)
        return taken

    def peak(self) -> int:
        """The time at which most was taken."""
        changes = [0] * (self.time + 2)
        for allocation in self.all:
            changes[allocation.born] += allocation.size
            if allocation.died is not None:
                changes[allocation.died] -= allocation.size
        most, peak, total = -1, 0, 0
        for time, change in enumerate(changes):
            total += change
            if total > most:
                most, peak = total, time
        return peak

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, nothing is noted."""
        self._paused = True
        yield
        self._paused = False

    def _free(self, key: int, _: weakref.ref[Any]) -> None:
        allocation, _ = self._living.pop(key)
        self.time += 1
        allocation.died = self.time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused:
            for leaf in tree_iter(result):
                if isinstance(leaf, Tensor):
                    self.of(leaf)
        return result
