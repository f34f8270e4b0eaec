"""Runs for other programs: `targets` has them by name, and each has a file that writes what it reads."""
