"""What lies on disk: shards of samples and features, written whole and read side by side."""

from aft_ray.store.side_by_side import Store, open_store

__all__ = ["Store", "open_store"]
