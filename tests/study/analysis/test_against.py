"""A study that declares which arm the others are compared with: only those pairs are tested."""

from dataclasses import replace
from pathlib import Path

import pytest

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.protocol import kept
from study.reporting import figures, methods_table, page
from study.reporting.terminal import show_results, standard_console
from study.statistics.pairwise import pairs_of
from study.statistics.score_types import Finding
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome
from study.trials.spec import TrialSpec
from tests.study.finished import SPACE, collected
from tests.study.reporting.pages import Tags

AGAINST = replace(SPACE, against="layernorm")


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """A study whose arms are compared with ``layernorm`` alone."""
    return collected(tmp_path_factory.mktemp("study"), space=AGAINST, ood=True)


def test_only_pairs_with_the_declared_arm_are_compared_and_corrected_for(
    declared: StudyResults, found: StudyResults
) -> None:
    pairs = [(pair.first, pair.second) for pair in declared.comparisons]
    assert pairs == [("lora", "layernorm"), ("layernorm", "full"), ("layernorm", "ia3")]
    assert len(found.comparisons) == 6 and len(declared.ood[0].comparisons) == 3
    every = {(pair.first, pair.second): pair for pair in found.comparisons}
    for pair in declared.comparisons:
        of_all = every[pair.first, pair.second].deciding
        assert pair.deciding.difference == of_all.difference and pair.deciding.p == of_all.p
        assert pair.deciding.p_holm <= min(1.0, 3 * pair.deciding.p)
        assert pair.deciding.p_holm <= of_all.p_holm
        # Fewer tests to correct for: fewer questions are needed.
        needed = pair.deciding.questions_needed, of_all.questions_needed
        assert None in needed or needed[0] <= needed[1]  # type: ignore[operator]  # not None
    assert declared.letters == {}, "other pairs were not compared"
    assert found.letters
    assert declared.strata is not None
    for group in declared.strata.groups:
        assert {pair.first for pair in group.pairs} == {"layernorm"}


def test_the_verdict_says_what_each_arm_is_to_the_declared_one(
    declared: StudyResults, capsys: pytest.CaptureFixture[str]
) -> None:
    score = next(arm.overall.mean for arm in declared.arms if arm.arm == "layernorm")
    start = f"Each arm was compared with layernorm ({score:.1f}%) and with no other, as declared. "
    assert declared.verdict.startswith(start)
    assert "ia3: worse" in declared.verdict
    assert [pair.deciding.finding for pair in declared.comparisons][-1] == Finding.BETTER
    show_results(standard_console(), declared)
    shown = capsys.readouterr().out
    assert all(pair in shown for pair in ("lora - layernorm", "layernorm - ia3"))


def test_the_report_shows_these_pairs_and_no_letters(
    declared: StudyResults, tmp_path: Path
) -> None:
    text = Tags(page.write(tmp_path, declared)[0].read_text("utf-8")).text
    assert "each arm is compared with layernorm and with no other" in " ".join(text.split())
    assert "corrected for 3 pairs" in text and "have a letter in common" not in text
    (drawn,) = figures.differences(declared)
    assert drawn.count("layernorm minus") + drawn.count("minus layernorm") >= 3
    results_file.write(tmp_path, declared)
    assert results_file.read(StudyFolder.from_path(tmp_path)).against == "layernorm"
    told = methods_table.rows(declared, kept.check(tmp_path, declared))["Decision"]
    assert "3 paired tests, of each arm with layernorm, Holm" in told


def test_where_the_declared_arm_is_not_confirmed_nothing_is_compared(tmp_path: Path) -> None:
    def lost(spec: TrialSpec) -> Outcome | None:
        return Outcome.DIVERGED if spec.arm in ("layernorm", "bitfit") else None

    found = collected(tmp_path, space=AGAINST, lost=lost)
    assert found.comparisons == () and len(found.confirmed) == 3
    assert found.verdict.startswith(
        "layernorm, with which the other arms were to be compared, could not be confirmed, so no "
        "arms are compared."
    )
    page.write(tmp_path, found)


def test_pairs_are_in_the_order_of_the_arms() -> None:
    assert pairs_of("abc") == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs_of("abc", "b") == [("a", "b"), ("b", "c")]
    assert pairs_of("abc", "x") == []
