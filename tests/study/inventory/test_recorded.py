"""MLflow stores of a study, by its journal and by the command that began it."""

import json
from pathlib import Path

import pytest

from study.inventory.recorded import mlflow_addresses
from study.search.journal import StudyJournal
from study.storage import study_files
from study.tracking.mlflow_store import default_uri, noted, usable

DEEP = "[" * 100_000
"""Content that no parser of JSON reads to its end."""


@pytest.mark.parametrize(
    ("options", "journal", "found"),
    [
        ("", [], ()),
        ("--tracking-uri http://me:pw@mlflow:5000/", [], ("http://mlflow:5000",)),
        ("--tracking-uri=http://mlflow:5000", ["http://b"], ("http://mlflow:5000", "http://b")),
        ("--tracking-uri http://b", ["", "http://b", ""], ("http://b", "")),
        ("--tracking-uri sqlite:///m.db", ["sqlite:////x/m.db"], ("sqlite:////x/m.db",)),
        ("--tracking-uri", ["http://b"], ("http://b",)),
        (None, ["http://b"], ("http://b",)),
        ("'", [], ()),
        (DEEP, ["http://b"], ("http://b",)),
    ],
)
def test_each_session_counts(
    tmp_path: Path, options: str | None, journal: list[str], found: tuple[str, ...]
) -> None:
    (tmp_path / "one").mkdir()
    command = {} if options is None else {"command": f"python -m study.launch {options}"}
    content = DEEP if options == DEEP else json.dumps(command)
    (tmp_path / "one" / "study.json").write_text(content)
    if journal:
        opened = StudyJournal(tmp_path / "one")
        for address in journal:
            opened.record_mlflow(address)
    assert mlflow_addresses(study_files.one(str(tmp_path), "one")) == found


def test_an_address_is_noted_without_secrets_and_opened_with_those_that_are_given(
    tmp_path: Path,
) -> None:
    database = "postgresql://me:a word@db/mlflow"
    assert noted(database, tmp_path) == "postgresql://me:***@db/mlflow"
    assert usable("postgresql://me:***@db/mlflow", tmp_path, [None, "http://x"]) is None
    assert usable("postgresql://me:***@db/mlflow", tmp_path, [None, database]) == database
    assert noted(default_uri(tmp_path), tmp_path) == ""
    assert usable("", tmp_path, []) == default_uri(tmp_path)
    assert noted("http://me:pw@host:5000/", tmp_path) == "http://host:5000"
    assert usable("http://host:5000", tmp_path, ["http://me:pw@host:5000"]) == (
        "http://me:pw@host:5000"
    )
