"""The terminal app: watch runs, look into one, compare several."""
