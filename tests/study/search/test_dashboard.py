"""Optuna's own dashboard reads a study's journal."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.search.scheduler import StudyScheduler
from study.storage.study_folder import JOURNAL
from study.trials.record import Outcome
from study.trials.spec import Kind
from tests.study.browser import answers
from tests.study.made_up import play_all

RUN = "from optuna_dashboard._cli import main; main()"  # its command, wherever that is installed


def test_it_shows_every_trial_with_its_curve(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    journal = play_all(begin()).journal
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    file = tmp_path / "study" / JOURNAL
    before = file.read_bytes()
    command = [sys.executable, "-c", RUN, str(file), "--port", str(port)]
    uri = f"http://127.0.0.1:{port}/api"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as dashboard:
        try:
            give_up = time.monotonic() + 120
            while not answers(f"{uri}/studies"):
                assert dashboard.poll() is None and time.monotonic() < give_up
                time.sleep(0.3)
            studies = {s["study_name"]: s["study_id"] for s in told(uri)["study_summaries"]}
            assert set(studies) == {"search", "confirm"}
            search = told(uri, studies["search"])
        finally:
            dashboard.send_signal(signal.SIGINT)
    assert search["directions"] == ["minimize"]
    shown = {trial["number"]: trial for trial in search["trials"]}
    for record in journal.of_kind(Kind.SEARCH):
        trial = shown[record.number]
        pruned = record.outcome is Outcome.PRUNED
        assert trial["state"] == ("Pruned" if pruned else "Complete")
        curve = {v["step"]: v["value"] for v in trial["intermediate_values"]}
        assert curve == {rung.examples_seen: rung.validation_loss for rung in record.rungs}
        named = {p["name"]: p["param_external_value"] for p in trial["params"]}
        assert named["arm"] == record.spec.arm
    assert file.read_bytes() == before, "looking changes nothing"


def told(uri: str, study: int | None = None) -> dict[str, Any]:
    """What its page asks for: all studies, or one."""
    where = f"{uri}/studies" + ("" if study is None else f"/{study}")
    with urllib.request.urlopen(where, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found
