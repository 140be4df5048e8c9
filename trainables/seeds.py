"""Random numbers that follow from a key alone: never from what ran before in the process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def number(*key: int | str) -> int:
    """A seed of 63 bits; keys that differ anywhere give unrelated ones."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Within, torch's global generators start from ``key``; afterwards they are as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number(*key))
        yield
