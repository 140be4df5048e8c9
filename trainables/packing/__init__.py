"""Trains several trials in one pass over a base that they share."""
