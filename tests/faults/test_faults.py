"""Some of the faults of ``python -m tests.faults``, in CI: those that no other test puts in."""

from pathlib import Path

import pytest

from tests.faults.faults import FAULTS, try_one, undisturbed

pytestmark = pytest.mark.slow
IN_CI = ("host-stopped", "raylet-killed")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("faults")
    undisturbed(found)
    return found


@pytest.mark.parametrize("name", IN_CI)
def test_a_study_ends_with_the_numbers_of_an_undisturbed_one(storage: Path, name: str) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    found = try_one(fault, storage)
    assert found.survived, found.why
