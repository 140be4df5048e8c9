"""Random numbers that depend on a key alone, never on what ran before in the process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.devices import accelerator


def derive_seed(*key: int | str) -> int:
    """Derive a seed of 63 bits from a key. Different keys give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global generators with ``key`` inside the block, and restore their states after
    it."""
    with accelerator.generators_seeded(derive_seed(*key)):
        yield
