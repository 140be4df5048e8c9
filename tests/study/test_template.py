"""The process that loads for all: hosts that are forked from it compute what others do."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from study.actor import _host
from study.arithmetic import Arithmetic
from study.forked import Forked
from study.guest import HostConfig
from study.guests import Guests
from study.host import Host
from study.placement import as_told
from study.records import Kind, TrialSpec
from study.settings import Settings
from study.storage import Shelf
from study.template import Template
from trainables.errors import BadInput
from trainables.regime import Regime
from trainables.workload import Workload

pytestmark = pytest.mark.long
SETTINGS = Settings(space="layernorm_vs_lora", precision="fp32")
ALONE = as_told(devices=1, deepspeed="off", batch_size=4, sharing=1, reason="")
SPEAKER = """
import pickle, sys, time
from study.actor import HostActor
actor = HostActor(pickle.load(sys.stdin.buffer))
print("there", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with closing(Template(SETTINGS)) as template:
        template.take(SETTINGS.workload.dataset())
        yield template


def config(folder: Path, template: Template | None = None) -> HostConfig:
    return HostConfig(
        workload=SETTINGS.workload,
        others={},
        shelf=Shelf(shared=folder),
        precision="fp32",
        regime=Regime(),
        places=1,
        template=template and template.socket,
    )


def first_report(host: Host | Forked, method: str) -> dict[str, Any]:
    """Of a trial of one step."""
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm=method,
        parameters={},
        recipe={slot: {"method": method} for slot in ("vision", "fusion", "decoder")},
        lr=1e-3,
        seed=0,
        max_examples=8,
        batch_size=4,
        stops=(4, 8),
        base="made up",
    )
    asked = host.ask(spec.plain(), placement=ALONE, heard=0, suspect=False)
    report: dict[str, Any] = asked.result(timeout=300)["rung"]
    host.leave(spec.id)
    return report


def forked_from(template: Template) -> set[int]:
    """Processes that live."""
    children = Path(f"/proc/{template._process.pid}/task/{template._process.pid}/children")
    return set(map(int, children.read_text().split()))


def until(condition: Any) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_forked_host_computes_what_one_that_loads_does(
    template: Template, tmp_path: Path
) -> None:
    survey = template.survey()
    assert survey.slots == ("vision", "fusion", "decoder")
    assert survey.arms["lora"].trained_parameters > survey.arms["layernorm"].trained_parameters
    lost = threading.Event()  # the template ends before this process does
    forked = Forked(template.socket, config(tmp_path / "forked", template), lost=lost.set)
    loaded = Host(config(tmp_path / "loaded"))
    for method in ("layernorm", "lora"):
        found, expected = (first_report(host, method) for host in (forked, loaded))
        for loss in ("validation_loss", "train_loss"):
            assert found[loss] == pytest.approx(expected[loss], rel=1e-6)


@pytest.mark.parametrize(("asked", "threads"), [("", 2), ("1", 1), ("16", 2), ("all", 2)])
def test_a_host_computes_on_its_own_processors_whatever_the_shell_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    try:
        Guests(replace(config(tmp_path), threads=2))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_shell_that_sets_no_number_of_threads_has_forked_hosts_too(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    forked = Forked(template.socket, config(tmp_path, template), lost=lambda: None)
    assert first_report(forked, "layernorm")["validation_loss"] > 0


def test_who_speaks_for_a_host_ends_with_it_and_the_next_is_there_at_once(
    template: Template, tmp_path: Path
) -> None:
    before = forked_from(template)
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", SPEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as speaker:
            assert speaker.stdin and speaker.stdout
            pickle.dump(config(tmp_path, template), speaker.stdin)
            speaker.stdin.close()
            assert speaker.stdout.readline() == b"there\n"
            (host,) = forked_from(template) - before
            os.kill(host, signal.SIGKILL)
            assert speaker.wait(60) == 1
        until(lambda: forked_from(template) <= before)


def test_hosts_end_with_the_driver_and_load_for_themselves_where_there_is_no_template(
    tmp_path: Path,
) -> None:
    with closing(Template(SETTINGS)) as template:
        pass
    assert not template.socket.exists()
    with pytest.raises(OSError):
        template.do(refuse)
    assert isinstance(_host(config(tmp_path, template)), Host)


def note(file: Path, workload: Workload) -> None:
    file.write_text(f"{workload.model.name} in {os.getpid()}")


def refuse(workload: Workload) -> None:
    raise BadInput(f"{workload.model.name} will not do")


def test_a_fork_does_something_with_the_model(template: Template, tmp_path: Path) -> None:
    for name in ("one", "other"):
        template.do(partial(note, tmp_path / name))
    one, other = ((tmp_path / name).read_text().split(" in ") for name in ("one", "other"))
    assert one[0] == other[0] == "tiny"
    assert len({one[1], other[1], str(template._process.pid), str(os.getpid())}) == 4
    with pytest.raises(BadInput, match="tiny will not do"):
        template.do(refuse)


def test_the_plan_is_of_the_devices_on_which_trials_run() -> None:
    """The driver may be where none of them is: then no step is timed, and no time is guessed."""
    theirs = Arithmetic(precision="bf16", devices=8, device_gib=80.0)
    with closing(Template(SETTINGS)) as template:
        template.take(SETTINGS.workload.dataset(), theirs)
        survey = template.survey()
    assert (survey.device, survey.seconds_an_example) == ("cuda", 0)


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    settings = Settings(space="layernorm_vs_lora", model=str(tmp_path))
    with closing(Template(settings)) as template:
        template.take(SETTINGS.workload.dataset())
        with pytest.raises(BadInput, match=str(tmp_path)):
            template.survey()
