"""The contract of a measure, normalised answers and scores of a split: what measures share."""
