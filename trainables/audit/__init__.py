"""Checks of a dataset for leakage and other defects, made before anything is trained on it."""
