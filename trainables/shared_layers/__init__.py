"""Layers that compute for several trials at once."""
