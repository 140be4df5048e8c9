"""Rungs of each arm: what stoppers share."""
