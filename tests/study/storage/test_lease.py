"""What a damaged lease says."""

import json
import time

import pytest

from study.storage import lease


@pytest.mark.parametrize("beat", [10**400, -(10**400), float("nan"), "1", None, [], {}])
def test_a_number_that_cannot_be_is_no_beat(beat: object) -> None:
    content = json.dumps({"driver": "here 1", "beat": beat}).encode()
    assert not lease.beats(content) and lease.holder(content) == "here"


def test_a_lease_that_was_renewed_lately_beats() -> None:
    now = time.time_ns() // 1000
    assert lease.beats(json.dumps({"beat": now}).encode())
    assert not lease.beats(json.dumps({"beat": now - 3600 * 10**6}).encode())
    assert not lease.beats(b"[" * 100_000) and lease.driver(b"null") == ""
