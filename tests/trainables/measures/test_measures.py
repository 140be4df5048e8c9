"""What every measure keeps, whichever it is: a file in ``trainables/measures`` joins by being
there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.trainables.measures.examples import examples
from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure, of_kind
from trainables.measures.common.options import choices_of
from trainables.measures.common.scores import columns, logged_name, measures, score

EXAMPLES = examples(
    ("closed", "yes"),
    ("open", "the left lung"),
    ("report", "The heart is enlarged. No effusion."),
    ("closed", "no"),
    ("report", "Lungs are clear."),
    ("open", "pneumonia"),
)
EXAMPLES += [replace(e, options=("ct", "mri")) for e in examples(("closed", "B"), ("closed", "ct"))]
ANSWERS = ["yes", "left lung", "The heart is enlarged.", "yes", "Lungs are clear.", "", "MRI", "X"]
ORDER = [5, 2, 7, 0, 4, 1, 6, 3]


def taken(measure: Measure, answers: list[str], asked: list[Example]) -> list[Any]:
    """What a measure takes of each question: an answer, or likelihoods by which it is likeliest."""
    if measure.takes == "answers":
        return answers
    return [
        [-1.0 if answer.lower() == one.lower() else -2.0 for one in choices_of(example)[0]]
        for answer, example in zip(answers, asked, strict=True)
    ]


def scored(measure: Measure, order: list[int]) -> dict[str, float]:
    """A measure's numbers of the examples that it is about, asked in another order."""
    given, asked = [ANSWERS[i] for i in order], [EXAMPLES[i] for i in order]
    chosen = of_kind(measure.of, asked)
    questions = [asked[i] for i in chosen]
    found = measure.score(taken(measure, [given[i] for i in chosen], questions), questions)
    assert isinstance(found, Mapping), (
        f"score of the measure of {', '.join(measure.columns)} must return a dict, with a number "
        f"for each of these, but it returned {found!r}"
    )
    return dict(found)


@pytest.mark.parametrize("name", measures())
def test_a_measure_fills_its_columns_with_numbers(name: str) -> None:
    measure = measures()[name]
    found = scored(measure, list(range(len(ANSWERS))))
    assert set(found) == set(measure.columns), (
        f"score of trainables/measures/{name}.py must give a value for each of MEASURE.columns"
    )
    for column, value in found.items():
        assert isinstance(value, float), (
            f"{column} of measure {name} must be a float, as float(...) makes it, not {value!r}"
        )
        assert math.isfinite(value), (
            f"{column} of measure {name} is {value} for eight ordinary answers, one of them empty: "
            "give a finite number wherever there is something to measure (nan is for nothing)"
        )


@pytest.mark.parametrize("name", measures())
def test_the_order_of_questions_changes_no_measure(name: str) -> None:
    measure = measures()[name]
    one, other = scored(measure, list(range(len(ANSWERS)))), scored(measure, ORDER)
    assert other == pytest.approx(one, nan_ok=True), (
        f"measure {name} depends on the order of the questions"
    )


@pytest.mark.parametrize("name", measures())
def test_a_percentage_is_at_most_what_perfect_answers_get(name: str) -> None:
    measure = measures()[name]
    chosen = [EXAMPLES[i] for i in of_kind(measure.of, EXAMPLES)]
    perfect = measure.score(taken(measure, [e.answer for e in chosen], chosen), chosen)
    for column, value in scored(measure, list(range(len(ANSWERS)))).items():
        if measure.columns[column].unit == "percent" and measure.columns[column].decides:
            assert 0 <= value <= perfect[column] + 1e-9, (
                f"{column} of measure {name} is {value}, and {perfect[column]} for perfect "
                "answers: if it is no percentage, give its Column a unit, or unit='' for none; "
                "if less is better, decides=False"
            )


@pytest.mark.parametrize("name", measures())
def test_a_column_has_a_name_that_mlflow_and_tables_take(name: str) -> None:
    for column in measures()[name].columns:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column), (
            f"column {column!r} of measure {name} must be lower case letters, digits and '_'"
        )


@pytest.mark.parametrize("name", measures())
def test_no_two_measures_share_a_column(name: str) -> None:
    for other in set(measures()) - {name}:
        both = sorted(set(measures()[name].columns) & set(measures()[other].columns))
        assert not both, f"measures {name} and {other} share columns: rename {', '.join(both)}"


def test_a_number_is_logged_with_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged_name("test.overall") == "test.overall_percent"
    assert logged_name("lora.ood.slake.token_f1") == "lora.ood.slake.token_f1_percent"
    monkeypatch.setitem(columns(), "words", Column(unit="words"))
    monkeypatch.setitem(columns(), "ece", Column(unit=""))
    assert logged_name("test.words") == "test.words_words"
    assert logged_name("test.ece") == "test.ece"


def test_measures_of_reports_are_left_out_where_there_are_none() -> None:
    asked = [e for e in EXAMPLES if e.answer_type != "report"]
    likelihoods = [[-1.0] * len(choices_of(e)[0]) for e in asked]
    found = score(asked, [e.answer for e in asked], likelihoods)
    of_reports = {name for name, column in columns().items() if column.of == "reports"}
    assert set(found) == set(columns()) - of_reports | {"report"}
    assert math.isnan(found["report"])
