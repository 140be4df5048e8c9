"""An arm of which a search trial diverged or collapsed at a small learning rate has more seeds, and
that is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from study.analysis import results_file
from study.analysis.result_types import ArmResult, StudyResults
from study.protocol import kept, planned
from study.reporting import page
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from study.trials.spec import Kind, TrialSpec
from tests.study.finished import bitfit, collected
from tests.study.protocol.any_protocol import ANY
from tests.study.reporting.pages import Tags


def strikes(spec: TrialSpec) -> Outcome | None:
    """Trials of LoRA diverge at learning rates far below the best, 3e-3."""
    if spec.kind is Kind.SEARCH and spec.arm == "lora" and spec.lr < 1e-3:
        return Outcome.DIVERGED
    return bitfit(spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def found(folder: Path) -> StudyResults:
    return collected(folder, lost=strikes, times_if_diverged=2)


def arm(results: StudyResults, name: str) -> ArmResult:
    return next(arm for arm in results.arms if arm.arm == name)


def test_verdict_and_report_say_which_arm_had_more_seeds_and_why(
    found: StudyResults, tmp_path: Path
) -> None:
    lora, other = arm(found, "lora"), arm(found, "layernorm")
    assert (len(lora.seeds), len(other.seeds)) == (4, 2)
    lr = min(t.lr for t in found.trials if t.outcome is Outcome.DIVERGED)
    assert (lora.diverged_at, other.diverged_at) == (lr, None)
    assert "lora was confirmed with twice the seeds, by rule" in found.verdict
    assert f"since a search trial of it diverged at lr={lr:.3g}, which is no" in found.verdict
    results_file.write(tmp_path, found)
    page.write(tmp_path, results_file.read(StudyFolder.from_path(tmp_path)))
    text = Tags((tmp_path / "report.html").read_text("utf-8")).text
    assert "lora was confirmed with 4 seeds, by a rule that was fixed beforehand" in text
    assert "trained again with 2 to 4 seeds" in text
    methods = (tmp_path / "methods.md").read_text("utf-8")
    assert "2 to 4 seeds, scored once on test; twice the seeds of lora, by rule" in methods


def test_more_seeds_by_the_rule_are_as_planned(found: StudyResults, tmp_path: Path) -> None:
    tested = tuple(each for each in found.arms if each.test)
    results = replace(found, arms=tested)
    for more, line in ((4, ""), (None, "seeds of lora: 4, planned 2")):
        protocol = replace(
            ANY, seeds=2, seeds_if_diverged=more, arms={each.arm: {} for each in tested}
        )
        planned.write(protocol, tmp_path)
        assert ("seeds_if_diverged" in json.loads((tmp_path / "protocol.json").read_text())) == (
            more is not None
        )
        said = [d for d in kept.check(tmp_path, results).deviations if d.startswith("seeds of")]
        assert said == ([line] if line else [])


def test_an_arm_that_collapsed_is_told_likewise(found: StudyResults, tmp_path: Path) -> None:
    other = arm(found, "lora")
    lora = replace(other, diverged_at=None, collapsed_at=other.diverged_at)
    results = replace(found, arms=tuple(lora if a is other else a for a in found.arms))
    page.write(tmp_path, results)
    text = Tags((tmp_path / "report.html").read_text("utf-8")).text
    assert "collapsed (its validation loss rose to more than 1.3 times what it was)" in text
    methods = (tmp_path / "methods.md").read_text("utf-8")
    assert "twice the seeds of lora, by rule: a search trial collapsed" in methods
    tested = tuple(each for each in results.arms if each.test)
    for more, line in ((4, ""), (None, "seeds of lora: 4, planned 2")):
        named = {each.arm: {} for each in tested}
        protocol = replace(ANY, seeds=2, seeds_if_collapsed=more, arms=named)
        planned.write(protocol, tmp_path)
        checked = kept.check(tmp_path, replace(results, arms=tested))
        said = [d for d in checked.deviations if d.startswith("seeds of")]
        assert said == ([line] if line else [])
