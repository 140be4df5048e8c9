"""Turns the records of trials into the study's answer. It needs neither the search nor Ray."""
