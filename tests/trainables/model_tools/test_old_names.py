"""Commands that moved say where they are."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["compose", "convert_llava", "pretrain_tiny"])
def test_a_command_under_its_old_name_says_its_new_one(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"trainables.models.{command}", "--help"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        f"error: python -m trainables.models.{command} "
        f"is python -m trainables.model_tools.{command} now."
    )
