"""Batches: which samples, in which order, decoded where."""
