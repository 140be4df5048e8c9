"""Matrices of several ranks are stacked as by hand, and each gets its own gradient."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from trainables.shared_layers.stack import Stack

WIDTH = 5


def by_hand(matrices: list[Tensor], transposed: bool) -> Tensor:
    rows = [matrix.t() if transposed else matrix for matrix in matrices]
    most = max(map(len, rows))
    return torch.stack([torch.nn.functional.pad(r, (0, 0, 0, most - len(r))) for r in rows])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ranks", [(3,), (2, 2, 2), (4, 1, 3), (1, 4)])
def test_it_is_as_by_hand_forward_and_backward(ranks: tuple[int, ...], transposed: bool) -> None:
    torch.manual_seed(0)
    drawn = [torch.randn(WIDTH, rank) if transposed else torch.randn(rank, WIDTH) for rank in ranks]
    weights = torch.randn(len(ranks), max(ranks), WIDTH)
    found = []
    for ours in (True, False):
        own = [matrix.clone().requires_grad_() for matrix in drawn]
        stacked = Stack(own, transposed=transposed)() if ours else by_hand(own, transposed)
        (stacked * weights).sum().backward()
        found.append([stacked, *(matrix.grad for matrix in own)])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("ranks", [(2, 2), (4, 1)])
def test_no_gradient_is_copied(ranks: tuple[int, ...]) -> None:
    """Each lies in its matrix's own layout, in memory that all of them share."""
    own = [torch.randn(WIDTH, rank, requires_grad=True) for rank in ranks]
    Stack(own, transposed=True)().square().sum().backward()
    gradients = [matrix.grad for matrix in own if matrix.grad is not None]
    assert all(gradient.is_contiguous() for gradient in gradients)
    assert len({gradient.untyped_storage().data_ptr() for gradient in gradients}) == 1


def test_a_matrix_that_is_not_finite_reaches_no_other() -> None:
    ranks = (4, 1)
    own = [torch.randn(rank, WIDTH) for rank in ranks]
    own[0][:] = torch.nan
    stacked = Stack(own, transposed=False)()
    assert stacked[0].isnan().all() and stacked[1].isfinite().all()
    assert not stacked[1, 1:].any()


def test_places_go_with_the_last_stack_that_needs_them() -> None:
    """Or they would fill a device's memory as trials come and go."""
    first, second = (
        Stack([torch.randn(3, WIDTH), torch.randn(2, WIDTH)], transposed=False) for _ in range(2)
    )
    assert first.places is not None and first.places is second.places
    places = weakref.ref(first.places)
    del first
    assert places() is not None
    del second
    assert places() is None
