"""Searchers, one per file: each says where the next trial of an arm lies.

A searcher is a module with a function ``point(past, arm)``, which gives the values of the arm's
parameters. It is a function of ``past`` (``common/known_trials.py``) and keeps nothing between two
draws, so a study that was killed and started again draws what it would have drawn.
"""
