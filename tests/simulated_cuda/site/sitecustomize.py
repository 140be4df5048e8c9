"""Makes the CUDA devices of a process simulated if ``SIMULATED_CUDA`` names their library.

Python imports this file at its start where this folder is on ``PYTHONPATH``. Only tests set both:
``tests/simulated_cuda/environment.py``.
"""

import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
BEFORE = {
    "torch.cuda": lambda module: module.install(os.environ["SIMULATED_CUDA"]),
    "torch.distributed.distributed_c10d": lambda module: module.say_gloo(),
    "bitsandbytes.cextension": lambda module: module.leave_out_libraries(),
}
"""Module -> what of ``install.py`` has to be done before it is imported."""
INSTEAD = {"bitsandbytes.backends.cuda.ops": HERE / "bits.py"}
"""Module -> file that is imported in its place."""


class Finder:
    """Is asked by Python for each module that it is about to import."""

    def __init__(self):
        self.waiting = set(BEFORE)

    def find_spec(self, name, path=None, target=None):
        if name in self.waiting:
            self.waiting.remove(name)
            spec = importlib.util.spec_from_file_location("simulated_cuda", HERE / "install.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            BEFORE[name](module)
        if name in INSTEAD:
            return importlib.util.spec_from_file_location(name, INSTEAD[name])
        return None  # the module itself is found as ever


if os.environ.get("SIMULATED_CUDA"):
    sys.meta_path.insert(0, Finder())
