"""Trials as values: what a trial is, what is known of it, and the callback that follows it."""
