"""Makes the CUDA devices of a process simulated if ``SIMULATED_CUDA`` names their library.

Python imports this file at its start where this folder is on ``PYTHONPATH``. Only tests set both:
``tests/simulated_cuda/environment.py``.
"""

import importlib.util
import os
import sys
from pathlib import Path


def install(name):
    """Run what ``install.py`` has to be done before module ``name`` is imported."""
    path = Path(__file__).resolve().parents[1] / "install.py"
    spec = importlib.util.spec_from_file_location("simulated_cuda_install", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name == "torch.cuda":
        module.install(os.environ["SIMULATED_CUDA"])
    else:
        module.say_gloo()


class BeforeTorch:
    """Is asked by Python for each module that it is about to import."""

    def __init__(self):
        self.waiting = {"torch.cuda", "torch.distributed.distributed_c10d"}

    def find_spec(self, name, path=None, target=None):
        if name in self.waiting:
            self.waiting.remove(name)
            install(name)
        return None  # the module itself is found as ever


if os.environ.get("SIMULATED_CUDA"):
    sys.meta_path.insert(0, BeforeTorch())
