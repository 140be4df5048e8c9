"""Imports what the end of a study needs while its last trials run, which leave processors free."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.conductor import Conductor
    from study.records import TrialRecord


class Early:
    """An observer of the conductor."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.conductor: Conductor | None = None

    def started(self, record: TrialRecord) -> None:
        """If it was the last one: now."""
        if self.conductor is not None and not self.conductor.more:
            threading.Thread(target=importlib.import_module, args=[self.module]).start()

    def reported(self, record: TrialRecord) -> None:
        """Nothing."""

    def ended(self, record: TrialRecord) -> None:
        """Nothing."""
