"""The message for a wrong name has the closest match and the allowed names."""

from __future__ import annotations

from trainables.errors import BadInput, unknown


def test_the_closest_name_is_offered() -> None:
    assert str(unknown("method", "lorra", ["lora", "ia3"])) == (
        "unknown method 'lorra'; did you mean 'lora'? There are: ia3, lora"
    )


def test_nothing_is_offered_where_nothing_is_close() -> None:
    assert str(unknown("method", "zzz", ["lora"])) == "unknown method 'zzz'; there are: lora"


def test_an_empty_choice_says_so() -> None:
    assert str(unknown("dataset", "a", [])) == "unknown dataset 'a'; there are: none"


def test_it_is_a_value_error() -> None:
    assert issubclass(BadInput, ValueError)
