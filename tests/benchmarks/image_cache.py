"""How long images take without the cache, when it is made, and ever after.

    python -m tests.benchmarks.image_cache --data vqa_rad --data-root DIR [--size 480]

The cache is made in a temporary folder, so that the user's own is neither used nor filled.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainables.data.common.image_cache import cached_images
from trainables.data.common.images import load_images
from trainables.workload import WorkloadConfig


def main() -> None:
    """Print a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--data-root")
    parser.add_argument("--size", type=int, default=480)
    given = parser.parse_args()
    dataset = WorkloadConfig(data=given.data, data_root=given.data_root).dataset()
    paths = [path for _, path in dataset.images()]
    print(f"{dataset.name}: {len(paths):,} images at {given.size} px, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        plain = timed("decoded, in one thread", lambda: load_images(paths, given.size))
        timed("decoded into the cache", lambda: cached_images(dataset, given.size))
        mapped = timed("mapped", lambda: cached_images(dataset, given.size))
        timed("mapped, and every byte read", lambda: np.array(mapped))
        assert np.array_equal(plain, mapped)
    print("all the same, byte for byte")


def timed(what: str, task: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Do it and say how long it took."""
    started = time.perf_counter()
    done = task()
    print(f"{what:28} {time.perf_counter() - started:8.3f} s")
    return done


if __name__ == "__main__":
    main()
