"""Scores of arms that are no means of credits over the questions of one test split."""
