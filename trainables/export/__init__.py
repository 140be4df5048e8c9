"""Writes and reads tuned models as files, in the project's own form and in peft's."""
