"""The message for a wrong name has the closest match and the allowed names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.installed import install
from trainables.errors import LONGEST, BadInput, is_whole, printable, too_old, unknown


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


def test_a_message_is_one_line_that_does_nothing_to_a_terminal() -> None:
    assert str(BadInput("a\n\n  b\t\x1b[31m \u202e\ud83d")) == r"a b \x1b[31m \u202e\ud83d"
    assert printable("two  blanks, Größe, 病") == "two  blanks, Größe, 病"


def test_a_long_value_leaves_room_for_what_is_allowed() -> None:
    said = str(unknown("method", "x" * 5_000, ["lora"]))
    assert said.startswith("unknown method 'xxx") and said.endswith("'; there are: lora")
    assert len(said) <= LONGEST and " letters left out] " in said
    assert str(BadInput("x" * LONGEST)) == "x" * LONGEST


def test_half_of_a_character_is_no_text() -> None:
    assert is_whole("病 \U0001f600") and not is_whole("\ud83d") and not is_whole("a\udcff")


@pytest.mark.parametrize(
    ("installed", "oldest", "refused"),
    [
        ("2.6.0+cu124", "2.6", False),
        ("2.6.0+cu124", "2.6.1", True),
        ("2.13.0", "2.9", False),
        ("2.9.0", "2.13", True),
        ("3.0.dev20260101", "2.9", False),
    ],
)
def test_a_package_that_is_too_old_is_named_with_both_versions(
    installed: str, oldest: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "of_tests", installed)
    monkeypatch.syspath_prepend(str(tmp_path))
    error = too_old("optimizer 'muon'", "of_tests", oldest, "give adamw")
    said = f"optimizer 'muon' needs of_tests >= {oldest}, installed is {installed}: pip install"
    assert error is None if not refused else str(error).startswith(said)
    assert error is None or str(error).endswith(f" 'of_tests>={oldest}', or give adamw")
