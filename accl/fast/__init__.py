"""Faster ways of computing what transformers' encoders compute, on their own weights: pure torch."""
