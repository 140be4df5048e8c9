"""Attention, prompts, batches and weights on disk: what model families share."""
