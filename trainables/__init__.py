"""Trains one trial: models, methods, data and engines. Knows nothing of Ray or of studies."""

import os

# PyTorch's profiler, which measures memory on a CPU, logs its starts and stops to the terminal. It
# reads this variable when torch is imported; from level 6 on it is silent.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
