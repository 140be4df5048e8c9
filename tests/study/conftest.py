from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.conductor import Conductor, Observer, Rules
from study.ledger import Ledger
from tests.study.finished import collected
from tests.study.made_up import rules


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Conductor]:
    """Begins a study in the test's folder, or goes on with the one that is there."""

    def begin(*observers: Observer, folder: str = "study", given: Rules | None = None) -> Conductor:
        (tmp_path / folder).mkdir(exist_ok=True)
        return Conductor(given or rules(), Ledger(tmp_path / folder), observers)

    return begin


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a made-up study of five arms. Not to be changed."""
    return collected(tmp_path_factory.mktemp("finished"), ood=True)
