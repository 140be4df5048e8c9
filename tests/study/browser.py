"""A browser, and MLflow's page for it to look at."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's; None where there is none."""


@contextmanager
def serving(storage: Path) -> Iterator[str]:
    """The address of ``python -m study.ui`` on a storage folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "study.ui", "--storage", str(storage), "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            uri, give_up = f"http://127.0.0.1:{port}", time.monotonic() + 240
            while not answers(f"{uri}/health"):
                assert server.poll() is None and time.monotonic() < give_up
                time.sleep(0.3)
            yield uri
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    """Whether a server gives something there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
