"""Tests in ``on_device`` belong to a process with simulated devices; ``test_on_device.py`` runs
them in one."""

import os

collect_ignore = [] if os.environ.get("SIMULATED_CUDA") else ["on_device"]
