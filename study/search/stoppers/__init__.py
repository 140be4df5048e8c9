"""Stoppers, one per file: each is a rule of early stopping.

A stopper is a module with a class ``Stopper(reduction)``. Its ``record`` takes a trial's validation
loss at a rung and returns whether the trial goes on. It is pure bookkeeping: a study that was
killed and started again tells it all losses in the order in which they came.
"""
