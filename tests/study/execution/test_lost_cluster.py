"""What a driver says when Ray is gone from its machine: real Ray, in a process of its own."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.study.command_line import REPOSITORY

pytestmark = pytest.mark.slow
DRIVER = """
import sys, time
from study.execution import cluster, lost_cluster
cluster.connect(None)
lost_cluster.watch(own=True, then=lambda: "--resume one goes on")
import ray
for started in ray._private.worker._global_node.all_processes[sys.argv[1]]:
    print(started.process.pid, flush=True)
sys.stdin.read()
cluster._shutdown()
time.sleep(1)
print("the end")
"""


@pytest.mark.parametrize(("process", "name"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_a_process_of_ray_that_is_killed_ends_the_driver_in_one_line(
    process: str, name: str
) -> None:
    with _driver(process) as driver:
        assert driver.stdout is not None
        os.kill(int(driver.stdout.readline()), signal.SIGKILL)
        driver.wait(timeout=60)  # its input stays open, so it ends for no other reason
        shown, said = driver.communicate()
    expected = f"error: Ray on this machine (its {name}) has died; nothing is lost: "
    assert (driver.returncode, shown, said) == (2, "", expected + "--resume one goes on\n")


def test_nothing_is_said_of_a_ray_that_is_shut_down() -> None:
    with _driver("raylet") as driver:
        shown, said = driver.communicate(timeout=60)
    assert (driver.returncode, said) == (0, "")
    assert re.fullmatch(r"\d+\nthe end\n", shown)


def _driver(process: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, process],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
