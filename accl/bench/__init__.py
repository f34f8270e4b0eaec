"""Measurements behind every number that accl tells of itself: `accl bench`."""
