"""Adaptive Feature Transfer (arXiv 2406.07337) on Ray."""

__version__ = "0.1.0"
