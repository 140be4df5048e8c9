"""What searchers know, first points that are spread out, and points as numbers: what they share."""
