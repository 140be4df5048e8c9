"""Checks of ``study.doctor``: whether all that a study needs is there."""
