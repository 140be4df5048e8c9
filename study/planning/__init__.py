"""Predicts what each arm of a study needs, and places it on devices."""
