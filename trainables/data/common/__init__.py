"""Examples, images, splits and published files: what the readers of datasets share."""
