"""Fixtures of ``tests/study`` that tests of whole studies use too."""

from tests.study.conftest import begin, found

__all__ = ["begin", "found"]
