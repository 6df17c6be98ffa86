from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from aft_ray import check
from aft_ray.config import InputError, Recipe
from aft_ray.prepare import prepare
from aft_ray.rank import rank
from aft_ray.regularizers import log_me
from aft_ray.store import Workspace, features_table, open_store, samples_fingerprint


@pytest.fixture
def recipe(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Features made by hand: one teacher that knows the class, one that is noise."""
    given = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder), "validation_fraction": 0.3},
            "teachers": [{"name": name, "model": "timm:test_vit"} for name in ("noise", "knowing")],
            "student": {"model": "tiny:cnn"},
        }
    )
    monkeypatch.setattr(check.teachers, "describe_teacher", lambda config: _Described())
    prepare(given)
    for split in ("train", "validation"):
        store = open_store(given.workspace, split)
        shard = store.read_shard(0)
        random = np.random.default_rng(0)
        noise = random.normal(size=(store.num_samples, 5))
        knowing = np.stack([1.0 - shard["label"], shard["label"]], 1) + 0.1 * noise[:, :2]
        for name, features in (("noise", noise), ("knowing", knowing)):
            directory = Workspace.at(given.workspace).features(name, split)
            fingerprint = {"samples": samples_fingerprint(store.manifest)}
            directory.write_shard(
                0, features_table(store.samples.read_shard(0)["sample_id"].combine_chunks(), features), fingerprint
            )
            directory.write_manifest(1, fingerprint, feature_dim=features.shape[1])
    return given


class _Described:
    fingerprint: dict = {}


def test_the_teacher_that_knows_the_class_comes_before_noise(recipe: Recipe) -> None:
    rows = rank(recipe)
    by_teachers = {tuple(row["teachers"]): row for row in rows}
    assert rows[0]["log_me"] >= rows[1]["log_me"] >= rows[2]["log_me"]
    assert rows[-1]["teachers"] == ["noise"]
    assert by_teachers[("knowing",)]["val_accuracy"] == 1.0
    shard = open_store(recipe.workspace, "train", ["knowing"]).read_shard(0)
    assert by_teachers[("knowing",)]["log_me"] == pytest.approx(log_me(shard["features"], shard["label"])[0])
    assert pq.read_table(Path(recipe.workspace) / "rank.parquet").to_pylist() == rows


def test_without_teachers_there_is_nothing_to_rank(recipe: Recipe) -> None:
    none = recipe.model_copy(
        update={"teachers": (), "regularizer": recipe.regularizer.model_copy(update={"name": "none"})}
    )
    with pytest.raises(InputError, match="there is nothing to rank"):
        rank(none)
