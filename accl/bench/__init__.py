"""Measurements of accl itself, for `accl bench`; README.md has the results."""
