"""Kernels in C for DeBERTa-v2 and -v3 on a CPU."""
