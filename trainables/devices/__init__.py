"""Devices on which trials compute: what PyTorch finds here, and what is known of each kind."""
