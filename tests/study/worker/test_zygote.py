"""The process that loads for all: hosts that are forked from it compute what others do."""

import errno
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

from study.config.definition import StudyDefinition
from study.config.settings import Settings
from study.planning.placement import uniform_placement
from study.storage.study_folder import StudyFolder
from study.trials.record import Rung
from study.trials.spec import Kind, TrialSpec
from study.worker.forked_host import ForkedHost
from study.worker.hardware import Hardware
from study.worker.host import Host
from study.worker.host_actor import _host
from study.worker.host_config import HostConfig
from study.worker.orders import AdvanceTrial, ForgetTrial
from study.worker.resident_trials import ResidentTrials
from study.worker.zygote import Zygote, _sendable
from trainables.devices.environment import STILL
from trainables.errors import BadInput
from trainables.training.regime import Regime
from trainables.workload import Workload

pytestmark = pytest.mark.long
ASKED = StudyDefinition.parse(Settings(space="layernorm_vs_lora", precision="fp32"))
ALONE = uniform_placement(devices=1, deepspeed="off", batch_size=4, sharing=1, reason="")
SPEAKER = """
import pickle, sys, time
from study.worker.host_actor import HostActor
actor = HostActor(pickle.load(sys.stdin.buffer))
print("there", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing(Zygote(ASKED)) as zygote:
        zygote.take(ASKED.workload.dataset())
        yield zygote


def config(folder: Path, zygote: Zygote | None = None) -> HostConfig:
    return HostConfig(
        workload=ASKED.workload,
        ood_workloads={},
        study_folder=StudyFolder.from_path(folder),
        regime=Regime(),
        trials_per_host=1,
        zygote=zygote and zygote.socket,
    )


def first_report(host: Host | ForkedHost, method: str) -> Rung:
    """First report of a trial of one step."""
    spec = one_step(method)
    asked = host.advance(AdvanceTrial(spec=spec, placement=ALONE))
    report = asked.result(timeout=300).rung
    assert report
    host.forget(ForgetTrial(trial_id=spec.id))
    return report


def one_step(method: str) -> TrialSpec:
    return TrialSpec(
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


def forked_from(zygote: Zygote) -> set[int]:
    """Processes that live."""
    children = Path(f"/proc/{zygote._process.pid}/task/{zygote._process.pid}/children")
    return set(map(int, children.read_text().split()))


def until(condition: Any) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_forked_host_computes_what_one_that_loads_does(zygote: Zygote, tmp_path: Path) -> None:
    profile = zygote.profile()
    assert profile.slots == ("vision", "fusion", "decoder")
    assert profile.arms["lora"].trained_parameters > profile.arms["layernorm"].trained_parameters
    lost = threading.Event()  # the zygote ends before this process does
    forked = ForkedHost(zygote.socket, config(tmp_path / "forked", zygote), lost=lost.set)
    loaded = Host(config(tmp_path / "loaded"))
    for method in ("layernorm", "lora"):
        found, expected = (first_report(host, method) for host in (forked, loaded))
        for loss in ("validation_loss", "train_loss"):
            assert getattr(found, loss) == pytest.approx(getattr(expected, loss), rel=1e-6)


@pytest.mark.parametrize(("asked", "threads"), [("", 2), ("1", 1), ("16", 2), ("all", 2)])
def test_a_host_computes_on_its_own_processors_whatever_the_shell_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    try:
        ResidentTrials(replace(config(tmp_path), threads=2))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_shell_that_sets_no_number_of_threads_has_forked_hosts_too(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    forked = ForkedHost(zygote.socket, config(tmp_path, zygote), lost=lambda: None)
    assert first_report(forked, "layernorm").validation_loss > 0


def test_who_speaks_for_a_host_ends_with_it_and_the_next_is_there_at_once(
    zygote: Zygote, tmp_path: Path
) -> None:
    before = forked_from(zygote)
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", SPEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as speaker:
            assert speaker.stdin and speaker.stdout
            pickle.dump(config(tmp_path, zygote), speaker.stdin)
            speaker.stdin.close()
            assert speaker.stdout.readline() == b"there\n"
            (host,) = forked_from(zygote) - before
            os.kill(host, signal.SIGKILL)
            assert speaker.wait(60) == 1
        until(lambda: forked_from(zygote) <= before)


def test_hosts_end_with_the_driver_and_load_for_themselves_where_there_is_no_zygote(
    tmp_path: Path,
) -> None:
    with closing(Zygote(ASKED)) as zygote:
        pass
    assert not zygote.socket.exists()
    with pytest.raises(OSError):
        zygote.do(refuse)
    assert isinstance(_host(config(tmp_path, zygote)), Host)


def note(file: Path, workload: Workload) -> None:
    file.write_text(f"{workload.model.name} in {os.getpid()}")


def refuse(workload: Workload) -> None:
    raise BadInput(f"{workload.model.name} will not do")


def test_a_fork_does_something_with_the_model(zygote: Zygote, tmp_path: Path) -> None:
    for name in ("one", "other"):
        zygote.do(partial(note, tmp_path / name))
    one, other = ((tmp_path / name).read_text().split(" in ") for name in ("one", "other"))
    assert one[0] == other[0] == "tiny"
    assert len({one[1], other[1], str(zygote._process.pid), str(os.getpid())}) == 4
    with pytest.raises(BadInput, match="tiny will not do"):
        zygote.do(refuse)


def test_a_forked_host_that_is_stopped_computes_nothing_and_can_be_ended(
    zygote: Zygote, tmp_path: Path
) -> None:
    before, lost = forked_from(zygote), threading.Event()
    forked = ForkedHost(zygote.socket, config(tmp_path, zygote), lost=lost.set)
    (process,) = forked_from(zygote) - before
    assert forked.processor_seconds() is None, "nobody waits for it"
    os.kill(process, signal.SIGSTOP)
    forked.advance(AdvanceTrial(spec=one_step("lora"), placement=ALONE))
    taken = [forked.processor_seconds() for _ in range(3) if time.sleep(0.1) is None]
    assert taken[0] is not None and len(set(taken)) == 1
    forked.end()
    assert lost.wait(60)


def test_a_host_says_how_much_it_has_computed(tmp_path: Path) -> None:
    host = Host(config(tmp_path))
    assert host.processor_seconds() is None
    reply = host.advance(AdvanceTrial(spec=one_step("lora"), placement=ALONE))
    taken = host.processor_seconds() or 0.0
    until(lambda: reply.done() or (host.processor_seconds() or 0.0) > taken)
    assert not reply.done()
    until(reply.done)
    assert host.processor_seconds() is None


def test_a_zygote_that_hangs_or_is_killed_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STILL, "1")
    with closing(Zygote(ASKED)) as zygote:
        os.kill(zygote._process.pid, signal.SIGSTOP)
        with pytest.raises(BadInput, match=r"hangs: it has computed nothing for 1 seconds; see"):
            assert zygote.hardware
        os.kill(zygote._process.pid, signal.SIGKILL)
        with pytest.raises(BadInput, match=r"was killed \(exit code -9\), maybe for lack of mem"):
            assert zygote.hardware


def test_nor_is_one_that_hangs_or_is_killed_before_it_has_taken_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STILL, "1")
    with closing(Zygote(ASKED)) as zygote:
        os.kill(zygote._process.pid, signal.SIGSTOP)
        zygote._send(bytes(2**24))  # more than the connection holds
        zygote.take(ASKED.workload.dataset())
        with pytest.raises(BadInput, match=r"hangs: it has computed nothing for 1 seconds; see"):
            assert zygote.hardware
    with closing(Zygote(ASKED)) as zygote:
        zygote._process.kill()
        os.waitid(os.P_PID, zygote._process.pid, os.WEXITED | os.WNOWAIT)
        zygote.take(ASKED.workload.dataset())
        with pytest.raises(BadInput, match=r"was killed \(exit code -9\), maybe for lack of mem"):
            assert zygote.hardware


def test_a_zygote_whose_driver_was_killed_ends_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with closing(Zygote(ASKED)) as zygote:
        assert zygote._connection.poll(60)
        zygote._connection.close()  # with a message that was not read, the other end is reset
        zygote._process.wait(60)
    assert capfd.readouterr().err == ""


def test_the_plan_is_of_the_devices_on_which_trials_run() -> None:
    """The driver may be where none of them is: then no step is timed, and no time is guessed."""
    theirs = Hardware(precision="bf16", devices=8, device_gib=80.0, kind="cuda")
    with closing(Zygote(ASKED)) as zygote:
        zygote.take(ASKED.workload.dataset(), theirs)
        profile = zygote.profile()
    assert (profile.device, profile.steps) == ("cuda", {})


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    asked = replace(ASKED, workload=replace(ASKED.workload, model=str(tmp_path)))
    with closing(Zygote(asked)) as zygote:
        zygote.take(ASKED.workload.dataset())
        with pytest.raises(BadInput, match=str(tmp_path)):
            zygote.profile()


def test_an_error_that_is_sent_says_first_what_it_is() -> None:
    """Its first line is what users are shown."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        first, *more = str(_sendable(error)).splitlines()
    assert first == "OSError: [Errno 28] No space left on device"
    assert more[0].startswith("Traceback") and "test_zygote.py" in more[1]


def test_a_space_may_have_classes_of_its_own(tmp_path: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "from search_spaces.declare import Arm, Space, method\n"
        "class Mine(Arm):\n    pass\n"
        'SPACE = Space(question="?", arms={"ln": Mine(everywhere=method("layernorm"), lr=1e-3)})\n'
    )
    asked = StudyDefinition.parse(Settings(space=str(space), trials=1, precision="fp32"))
    with closing(Zygote(asked)) as zygote:
        zygote.take(asked.workload.dataset())
        assert set(zygote.profile().arms) == {"ln"}
