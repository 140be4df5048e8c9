"""Layers that compute for several trials at once."""

import logging

# peft imports bitsandbytes where it is installed. On some processors that would say, whatever is
# run, that it lacks a package for faster kernels, of which nothing here uses any.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
