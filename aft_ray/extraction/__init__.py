"""Extraction on Ray Data: read on CPUs, compute features on devices, write shards."""
