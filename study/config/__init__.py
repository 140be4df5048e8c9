"""Holds what the user asked of a study, checked before anything heavy is imported."""
