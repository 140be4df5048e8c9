"""Keeps a study's files, in a folder or in an object store."""
