"""Scores with their intervals, comparisons of them and their power. It knows nothing of studies."""
