"""The same files as ``slake``."""

from tests.trainables.data.small.slake import write

__all__ = ["write"]
