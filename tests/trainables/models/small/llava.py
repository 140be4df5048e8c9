"""A small random LLaVA."""

from tests.trainables.made_llava import small_llava as small

__all__ = ["small"]
