"""Several independent searches of each arm: what they share, and what is said of them."""

import re
from pathlib import Path

import pytest

from study.analysis import results, results_file
from study.analysis.verdict import SCOPE
from study.config.definition import several
from study.reporting import page
from study.statistics.score_types import Claim
from study.storage.study_folder import StudyFolder
from study.trials.searches import SEEDS
from study.trials.spec import Kind
from tests.study.finished import SPACE, collected
from trainables.errors import BadInput


def test_two_searches_are_one_arm_whose_luck_of_search_is_in_its_interval(tmp_path: Path) -> None:
    found = collected(tmp_path, trials=60, searches=2)
    assert found.claim is Claim.METHODS and SCOPE[Claim.METHODS] in found.verdict
    assert [arm.arm for arm in found.confirmed] == ["lora", "layernorm", "full", "ia3"]
    of_lora = [trial for trial in found.trials if trial.arm == "lora"]
    by_search: dict[int, dict[str, set[object]]] = {}
    for trial in of_lora:
        kind = by_search.setdefault(trial.search, {})
        kind.setdefault("seeds", set()).add(trial.seed)
        kind.setdefault("points", set()).add(trial.lr)
    assert sorted(by_search) == [0, 1]
    assert by_search[0]["seeds"] == {0, 1, 2}
    assert by_search[1]["seeds"] == {SEEDS + seed for seed in (0, 1, 2)}
    assert not by_search[0]["points"] & by_search[1]["points"]
    lora = found.confirmed[0]
    assert len(lora.seeds) == 4  # two of each search
    assert all(pair.parts["overall"].seeds == 2 for pair in found.comparisons)
    confirmed = {t.search: t for t in of_lora if t.kind is Kind.CONFIRM}
    assert lora.best is not None
    best = found.trial(lora.best.trial)
    assert best.parameters == confirmed[best.search].parameters

    results_file.write(tmp_path, found)
    again = results_file.read(StudyFolder.from_path(tmp_path))
    assert again.claim is Claim.METHODS and again.searches == 2
    text = page.write(tmp_path, found)[0].read_text(encoding="utf-8")
    assert "Each arm was searched 2 times" in text and "lora#2" not in text
    assert results.metrics(found)["lora.test.overall_percent"] == pytest.approx(lora.overall.mean)


def test_one_search_says_nothing_of_methods(tmp_path: Path) -> None:
    found = collected(tmp_path)
    assert found.claim is Claim.MODELS and SCOPE[Claim.MODELS] in found.verdict
    text = page.write(tmp_path, found)[0].read_text(encoding="utf-8")
    assert "It is no claim about the methods" in re.sub(r"\s+", " ", text)


def test_the_name_of_an_arm_is_not_that_of_anothers_search() -> None:
    space = several(SPACE, 3)
    assert len(space.arms) == 15 and space.arms["lora#3"] is SPACE.arms["lora"]
    assert several(SPACE, 1) is SPACE
    with pytest.raises(BadInput, match="needs names without '#', got arm 'layernorm#2'"):
        several(space, 2)
