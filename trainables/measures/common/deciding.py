"""The measure that decides which arm is better, by the name of a column or as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables import registry
from trainables.data.common.dataset import Example
from trainables.errors import BadInput, unknown
from trainables.measures.common.measure import Measure, of_kind
from trainables.measures.common.parts import PARTS, part_of
from trainables.measures.common.scores import measures


@dataclass(frozen=True, kw_only=True)
class Deciding:
    """One column of a measure, by which arms are compared."""

    column: str
    measure: Measure

    @property
    def title(self) -> str:
        """Heading of the column."""
        return self.measure.columns[self.column].title or f"{self.column.replace('_', ' ')} %"

    def places(self, examples: Sequence[Example]) -> list[int]:
        """Indices of the examples that the column is about."""
        if self.column in PARTS:
            return [i for i, asked in enumerate(part_of(self.column, examples)) if asked]
        return of_kind(self.measure.of, examples)

    def value(self, given: Sequence[Any], examples: Sequence[Example]) -> float:
        """The column's value for what the measure takes of all ``examples``: answers, or
        likelihoods."""
        places = self.places(examples)
        some = [given[i] for i in places], [examples[i] for i in places]
        return float(self.measure.score(*some)[self.column])


def deciding(name: str) -> Deciding:
    """The column ``name``, or the first of the measure in a file ``name.py``.

    Raises:
        BadInput: there is no such column or file, no measure in the file, or the column is none to
            decide by.
    """
    if name.endswith(".py"):
        measure = _in_file(Path(name))
        return Deciding(column=next(iter(measure.columns)), measure=measure)
    able = {
        column: measure
        for measure in measures().values()
        for column, about in measure.columns.items()
        if about.decides
    }
    if name not in able:
        raise unknown("value of --measure", name, [*able, "a file.py of your own"])
    return Deciding(column=name, measure=able[name])


def _in_file(file: Path) -> Measure:
    """The measure that a file defines."""
    module = registry.of_user(file, "--measure takes one, or a column of a measure")
    found = getattr(module, "MEASURE", None)
    if not isinstance(found, Measure) or not found.columns:
        raise BadInput(
            f"{file} must define MEASURE = Measure(...) with a column; see "
            "trainables/measures/balanced.py"
        )
    return found
