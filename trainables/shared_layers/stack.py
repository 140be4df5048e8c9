"""Stacks matrices of several ranks to one tensor, in few operations forward and backward.

Autograd's own would copy the gradient of each matrix out of the stack, and for lower ranks than the
highest fill a tensor with zeros and add to it. Here each matrix gets its gradient as memory in its
own layout, which autograd takes as it is: two operations for all of them.

Legend: M matrices, R the highest of their ranks, K their other size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Stack:
    """Stacks M matrices, each of shape (rank, K), or (K, rank) if transposed."""

    def __init__(self, matrices: Sequence[Tensor], *, transposed: bool) -> None:
        self.matrices, self.transposed = matrices, transposed
        self.ranks = tuple(matrix.shape[1 if transposed else 0] for matrix in matrices)
        self.other = matrices[0].shape[0 if transposed else 1]
        self.places: _Places | None = None
        """Where each part of the stack comes from; None if all matrices have the same rank."""
        if len({*self.ranks}) > 1:
            self.places = _places(self.ranks, self.other, matrices[0], transposed)

    def __call__(self) -> Tensor:
        """The stack, of shape (M, R, K), in which lower ranks are padded with zeros."""
        if len(self.matrices) == 1:
            only = self.matrices[0]
            return (only.t() if self.transposed else only)[None]
        stacked: Tensor = _Stacked.apply(self, *self.matrices)  # type: ignore[no-untyped-call]  # torch
        return stacked

    def parts(self, tensor: Tensor) -> Tensor:
        """A tensor's parts, one after the other: its rows, or its values if transposed."""
        return tensor.reshape(-1) if self.transposed else tensor.reshape(-1, self.other)


class _Stacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stack: Stack, *matrices: Tensor) -> Tensor:
        ctx.stack = stack
        if stack.places is None:
            stacked = torch.stack(matrices)
            return stacked.transpose(1, 2) if stack.transposed else stacked
        every = torch.cat([*map(stack.parts, matrices), stack.places.zero])
        return every.index_select(0, stack.places.there).view(len(matrices), -1, stack.other)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MRK: Tensor) -> tuple[Tensor | None, ...]:
        stack: Stack = ctx.stack
        if stack.places is None:
            grad = grad_MRK.transpose(1, 2) if stack.transposed else grad_MRK
            return None, *grad.contiguous().unbind()
        every = stack.parts(grad_MRK).index_select(0, stack.places.back)
        each = [rank * stack.other if stack.transposed else rank for rank in stack.ranks]
        wide = (stack.other, -1) if stack.transposed else (-1, stack.other)
        return None, *(part.view(wide) for part in every.split(each))


class _Places:
    """Indices that gather a stack from its matrices' parts, and their gradients from the stack's.

    ``there`` holds, for each part of the stack, its number among the parts of all matrices and a
    last one, ``zero``; ``back`` the number in the stack of each matrix's parts.
    """

    def __init__(self, ranks: Sequence[int], other: int, like: Tensor, transposed: bool) -> None:
        parts = other if transposed else 1
        total, start = parts * sum(ranks), 0
        there_MRP = torch.full((len(ranks), max(ranks), parts), total, dtype=torch.int32)
        for there_RP, rank in zip(there_MRP, ranks, strict=True):
            own = torch.arange(start, start + rank * parts, dtype=torch.int32)
            there_RP[:rank] = own.view(parts, rank).t() if transposed else own.view(rank, parts)
            start += rank * parts
        there = there_MRP.view(-1)
        back = torch.empty(total + 1, dtype=torch.int32)
        back[there.long()] = torch.arange(len(there), dtype=torch.int32)
        self.there, self.back = there.to(like.device), back[:-1].to(like.device)
        self.zero = like.new_zeros(1) if transposed else like.new_zeros(1, other)


_in_use: WeakValueDictionary[Any, _Places] = WeakValueDictionary()
"""Places of the stacks that exist; layers of the same shape share theirs."""


def _places(ranks: tuple[int, ...], other: int, like: Tensor, transposed: bool) -> _Places:
    """Places of a stack of such matrices, shared with the stacks that have the same."""
    key = (ranks, other, like.device, like.dtype, transposed)
    places = _in_use.get(key)
    if places is None:
        places = _in_use[key] = _Places(ranks, other, like.detach(), transposed)
    return places
