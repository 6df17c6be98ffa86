"""Features by sample id are the store's, whatever order they are asked in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aft_ray.recipe.errors import InputError
from aft_ray.store import features_by_id, open_store
from tests.helpers.training import TEACHERS, TRAIN, WIDTHS, made_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_workspace(tmp_path_factory.mktemp("features")).workspace


def test_every_sample_has_the_row_that_the_store_has(workspace: str) -> None:
    features = features_by_id(workspace, "train", TEACHERS)
    assert features.teacher_dims == list(WIDTHS) and len(features) == len(TRAIN)
    for shard in open_store(workspace, "train", TEACHERS).map_shards(dict):
        for name, row in zip(shard["sample_id"], shard["features"], strict=True):
            np.testing.assert_array_equal(features[name], row)
        backwards = shard["sample_id"][::-1]
        assert torch.equal(features.rows(backwards), torch.from_numpy(shard["features"][::-1].copy()))


def test_unknown_ids_are_named(workspace: str) -> None:
    features = features_by_id(workspace, "train", TEACHERS)
    with pytest.raises(InputError, match="No features of nobody: 1 of 2 ids"):
        features.rows([next(iter(features)), "nobody"])


def test_a_collator_adds_features_to_examples_with_an_id_alone(workspace: str) -> None:
    features = features_by_id(workspace, "train", TEACHERS)
    collate = features.collator(lambda rows: {"x": torch.tensor([row["x"] for row in rows])})
    ids = list(features)[:3]
    batch = collate([{"sample_id": name, "x": number} for number, name in enumerate(ids)])
    assert batch["x"].tolist() == [0, 1, 2] and torch.equal(batch["teacher_features"], features.rows(ids))
    assert list(collate([{"x": 5}])) == ["x"]
