"""What lies on disk: shards of samples and features, written whole and read side by side."""

from aft_ray.store.features_by_id import FeaturesById, features_by_id
from aft_ray.store.side_by_side import Store, open_store

__all__ = ["FeaturesById", "Store", "features_by_id", "open_store"]
