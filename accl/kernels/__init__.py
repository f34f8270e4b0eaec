"""Faster ways of computing what transformers' encoders compute, on their own weights: torch and Triton."""
