"""Environment of a process whose PyTorch has simulated CUDA devices."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c++20", "-O1", "-shared", "-fPIC", "-w")


def environment(*, devices: int = 1, gib: float = 16) -> dict[str, str]:
    """Variables to add to a process's environment, which its child processes inherit.

    Args:
        devices: how many there are; ``CUDA_VISIBLE_DEVICES`` chooses among them.
        gib: memory of each device in GiB, for each process of its own.
    """
    search = (str(HERE / "site"), os.environ.get("PYTHONPATH", ""))
    return {
        "SIMULATED_CUDA": str(library()),
        "SIMULATED_CUDA_DEVICES": str(devices),
        "SIMULATED_CUDA_BYTES": str(int(gib * 2**30)),
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
    }


def library() -> Path:
    """The library that ``install.py`` loads. It is compiled if the user's cache does not have it
    for these sources and this PyTorch (half a minute, needs g++)."""
    import torch

    sources = sorted((HERE / "device").iterdir())
    content = b"".join(source.read_bytes() for source in sources)
    key = f"{torch.__version__} {FLAGS}".encode() + content
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "medvlm-study-tests" / f"simulated-cuda-{hashlib.sha256(key).hexdigest()}.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "simulated-cuda.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(Path(torch.__file__).parent, target)
    return target


def _compile(torch: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    include, libraries = torch / "include", torch / "lib"
    subprocess.run(
        [
            *("g++", *FLAGS, str(HERE / "device" / "device.cpp"), "-o", str(partial)),
            *(f"-I{include}", f"-I{include}/torch/csrc/api/include"),
            *(f"-L{libraries}", "-ltorch_cpu", "-lc10"),
        ],
        check=True,
    )
    partial.replace(target)
