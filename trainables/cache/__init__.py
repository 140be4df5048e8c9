"""Caches files that are computed or downloaded once and used again."""
