"""Adaptive Contrastive Curriculum Learning on MMLU, managed from a terminal."""

__version__ = "0.1.0"
