"""A server that speaks S3, for tests: moto's, in a process of its own, in memory."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def serve(*buckets: str, host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """The environment with which S3 clients reach it. Its buckets are there."""
    pytest.importorskip("moto", reason='pip install -c constraints.txt -e ".[infra]"')
    import boto3

    with socket.socket() as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    with subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            give_up = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection((host, port), timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < give_up
                    time.sleep(0.1)
            client = boto3.client(
                "s3",
                endpoint_url=environment["AWS_ENDPOINT_URL"],
                aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
                region_name="us-east-1",
            )
            for bucket in buckets:
                client.create_bucket(Bucket=bucket)
            yield environment
        finally:
            os.killpg(server.pid, signal.SIGKILL)
