"""Triton kernels for DeBERTa-v2 and -v3 on packed sequences."""
