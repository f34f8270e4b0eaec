"""Ways to compute the same optimizer step: the reference, and faster ones that must agree with it."""
