"""Terminal app to watch runs, inspect one, and compare several."""
