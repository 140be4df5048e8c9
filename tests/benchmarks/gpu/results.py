"""The file of results: a line of JSON for each measurement, written as soon as it is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.machine import Result


class Results:
    """Results of this run and of earlier ones on the same machine."""

    def __init__(self, path: Path, label: str) -> None:
        """Read what the file has; ``label`` is the machine's, and results of others are ignored."""
        self.path, self.label = path, label
        self._found: dict[tuple[int, str], Result] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except ValueError:  # a line whose process was killed as it wrote
                continue
            if told.get("machine") == label and "result" in told:
                self._found[told["part"], told["name"]] = told["result"]

    def taken(self, part: int) -> dict[str, Result]:
        """Name -> result of each measurement of a part that was taken."""
        return {name: result for (number, name), result in self._found.items() if number == part}

    def begin(self, versions: dict[str, str]) -> None:
        """Write a line about this run."""
        self._write({"machine": self.label, "versions": versions})

    def add(self, part: int, name: str, seconds: float, result: Result) -> None:
        """Write a result, which later runs need not measure again."""
        self._found[part, name] = result
        self._write(
            {
                "machine": self.label,
                "part": part,
                "name": name,
                "seconds": round(seconds, 3),
                "result": dict(result),
            }
        )

    def fail(self, part: int, name: str, error: str) -> None:
        """Write why a measurement failed; a later run tries it again."""
        self._write({"machine": self.label, "part": part, "name": name, "error": error})

    def _write(self, content: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + json.dumps(content) + "\n")
        self._torn = False
