"""Compares studies that were tested on the same questions."""
