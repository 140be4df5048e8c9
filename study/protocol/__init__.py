"""The protocol of a study as a file: fixed before the first trial, checked at the end."""
