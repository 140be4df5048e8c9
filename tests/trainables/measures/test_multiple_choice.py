"""Which option an answer names, and what is scored by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.trainables.measures.examples import examples
from trainables.data.common.dataset import Example
from trainables.data.common.multiple_choice import cleaned
from trainables.measures.common.baselines import has_collapsed, majority_answers, majority_baseline
from trainables.measures.common.options import named
from trainables.measures.common.scores import score, shown_columns

OPTIONS = ("ct", "pneumonia", "no pneumonia", "E. coli")


def asked(*answers: str, options: Sequence[str] = OPTIONS) -> list[Example]:
    """Questions with these true answers."""
    found = examples(*(("closed", answer) for answer in answers))
    return [replace(example, options=tuple(options)) for example in found]


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("pneumonia", 1),
        ("PNEUMONIA.", 1),
        ("B", 1),
        ("a", 0),
        ("(b)", 1),
        ("b : pneumonia", 1),
        ("The answer is C.", 2),
        ("Answer: B", 1),
        ("There is no pneumonia here", 2),
        ("e. coli was found", 3),
        ("a ct", 0),
        ("ct or pneumonia", None),
        ("B: ct", None),
        ("nothing", None),
        ("", None),
        ("Z", None),
    ],
)
@pytest.mark.parametrize("truth", ["pneumonia", "B", "B: pneumonia"])
def test_which_option_an_answer_names(answer: str, place: int | None, truth: str) -> None:
    assert named(answer, asked(truth)[0]) == place


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("\uff22", 1),
        ("\uff22\uff1a\u80ba\u708e", 1),
        ("A\u3001", 0),
        ("\u662f\u80ba\u708e\u3002", 1),
    ],
)
def test_options_in_chinese(answer: str, place: int) -> None:
    options = ("\u6b63\u5e38", "\u80ba\u708e")
    assert named(answer, asked("\uff22", options=options)[0]) == place
    assert cleaned([f"\uff21\uff1a{options[0]}", f"\uff22\uff1a{options[1]}"]) == options


def test_an_answer_is_read_as_the_true_answer_is_written_first() -> None:
    groups = ("O", "A", "B", "AB")
    by_text, by_letter = (asked(truth, options=groups)[0] for truth in ("AB", "D"))
    assert named("B", by_text) == 2
    assert named("B", by_letter) == 1


def test_scores_of_options_stand_beside_the_others() -> None:
    questions = [*asked("B", "pneumonia", "ct", "ct"), *examples(("open", "liver"))]
    scores = score(questions, ["pneumonia", "B: pneumonia", "mri", "no idea", "liver"])
    assert (scores["choice"], scores["named_option"]) == (50.0, 50.0)
    assert (scores["closed"], scores["overall"], scores["open"]) == (50.0, 60.0, 100.0)
    assert list(shown_columns(scores)) == ["overall", "open", "closed", "choice"]


def test_without_options_there_is_no_such_score() -> None:
    scores = score(examples(("closed", "yes")), ["yes"])
    assert "choice" not in scores and "choice" not in shown_columns(scores)
    assert math.isnan(scores["open"])


def test_the_majority_is_the_most_frequent_letter() -> None:
    train = [*asked("B", "pneumonia", "A: ct"), *examples(("closed", "yes"))]
    assert majority_answers(train) == {"options": "B", "closed": "yes"}
    test = asked("pneumonia", "B", "ct", "D")
    assert majority_baseline(train, test)["choice"] == 50.0
    few = asked("O", options=("O", "B"))  # where B is the text of an option, too
    assert majority_baseline(train, few)["choice"] == 0.0


def test_always_the_same_letter_is_a_collapse() -> None:
    questions = asked(*"ABCD" * 5)
    assert has_collapsed(questions, ["pneumonia", "B", "b", "B: pneumonia"] * 5)
    assert not has_collapsed(questions, ["A", "B", "C", "D"] * 5)
