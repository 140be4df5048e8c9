"""What a trial trains and how, without Ray."""

import os

# PyTorch's profiler, which memory is measured by, tells its starts and stops on the terminal. It
# looks here as torch is imported; from 6 on it is silent.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
