"""Predicts and measures the memory of a trial."""
