"""Generator of the phantom dataset: random bits, then cases, then drawings and questions."""
