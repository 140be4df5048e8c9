"""Options of multiple-choice questions: which there can be, and how an answer names one."""

from __future__ import annotations

import pytest

from trainables.data.common.multiple_choice import cleaned, usual_way, written

OPTIONS = ("ct", "pneumonia", "E. coli")
LETTERS = ["A", "B", "C"]
BOTH = ["A: ct", "B: pneumonia", "C: E. coli"]


@pytest.mark.parametrize(
    ("answer", "way"),
    [
        ("pneumonia", [*OPTIONS]),
        (" Pneumonia.", [*OPTIONS]),
        ("B", LETTERS),
        ("b", LETTERS),
        ("(B)", LETTERS),
        ("B.", LETTERS),
        ("B: pneumonia", BOTH),
        ("b) PNEUMONIA.", BOTH),
    ],
)
def test_an_answer_is_an_option_its_letter_or_both(answer: str, way: list[str]) -> None:
    assert written(answer, OPTIONS) == (1, way)


def test_the_usual_way_is_that_of_most_answers() -> None:
    answered = [("B", OPTIONS), ("a", OPTIONS), ("ct", OPTIONS), ("yes", ())]
    assert usual_way(answered) == "letter"
    assert usual_way([("B: pneumonia", OPTIONS)]) == "both"
    assert usual_way(answered[2:]) == "text"
    assert usual_way(answered[3:]) == "", "no question has options"


@pytest.mark.parametrize("answer", ["pneumothorax", "D", "A: pneumonia", "", "2"])
def test_an_answer_that_is_no_option_is_refused(answer: str) -> None:
    with pytest.raises(
        ValueError, match=r"is none of its options: A: ct; B: pneumonia; C: E\. coli"
    ):
        written(answer, OPTIONS)


def test_a_letter_that_is_also_another_options_text_is_refused() -> None:
    groups = ("O", "A", "B", "AB")
    with pytest.raises(ValueError, match=r"'B' is the letter of one .* write both, as 'C: B'"):
        written("B", groups)
    assert written("C: B", groups)[0] == 2
    assert written("AB", groups)[0] == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "options must be 2 to 26 but there are 0"),
        (["ct"], "options must be 2 to 26 but there are 1"),
        ([str(n) for n in range(27)], "options must be 2 to 26 but there are 27"),
        (["ct", " "], "option B is empty"),
        (["CT", "mri", "ct."], "options A and C are equal: 'ct.'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cleaned(options)


def test_options_that_bring_their_letters_are_taken_without() -> None:
    assert cleaned([" A:ct", "B: pneumonia\nof the lung"]) == ("ct", "pneumonia of the lung")
    assert cleaned(["A: ct", "mri"]) == ("A: ct", "mri")
    assert cleaned(["T1+", "T1-"]) == ("T1+", "T1-")
