"""Measures of answers, one per file."""
