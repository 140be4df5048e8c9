"""Fixtures that tests of several folders of ``study/`` use."""

from collections.abc import Callable
from pathlib import Path

import pytest

from study.analysis.result_types import StudyResults
from study.search.journal import StudyJournal
from study.search.scheduler import SearchRules, StudyScheduler
from study.trials.callback import StudyCallback
from tests.study.finished import collected
from tests.study.made_up import rules


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., StudyScheduler]:
    """Begins a study in the test's folder, or goes on with the one that is there."""

    def begin(
        *callbacks: StudyCallback, folder: str = "study", given: SearchRules | None = None
    ) -> StudyScheduler:
        (tmp_path / folder).mkdir(exist_ok=True)
        return StudyScheduler(given or rules(), StudyJournal(tmp_path / folder), callbacks)

    return begin


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """The results of a made-up study of five arms."""
    return collected(tmp_path_factory.mktemp("finished"), ood=True)
