"""Whatever is wrong with a file, its reader takes it or refuses it in one line.

By hand, and for longer: ``python -m tests.bad_input.fuzz --seconds 3600``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.bad_input.mutations import of_bytes, of_json, of_lines


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_for_a_minute() -> None:
    """In a process of its own, which a library may end. Its seed is fixed, so that a change is
    judged by itself and not by chance; other seeds are for runs by hand."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bad_input.fuzz", "--seed", "1", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-20_000:]


def test_a_damage_follows_from_its_seed_and_changes_the_file() -> None:
    content = b'{"a": [1, "b", {"c": null}], "d": 2.5}'
    for mutate in (of_bytes, of_json, of_lines):
        made = [mutate(content, random.Random(seed)) for seed in range(100)]
        assert made == [mutate(content, random.Random(seed)) for seed in range(100)]
        assert len(set(made)) > 60 and made.count(content) < 10
