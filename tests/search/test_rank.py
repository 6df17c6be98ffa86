from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from aft_ray.commands.check import open_setup
from aft_ray.commands.rank import show_ranking
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import log_me
from aft_ray.search.rank import _Covariance, rank, ranking_of
from aft_ray.store.parquet import features_table
from aft_ray.store.shards import samples_fingerprint
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training import check
from tests.helpers.training import DATA, TEST, TRAIN, VALIDATION, made_workspace


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
    monkeypatch.setattr(check.teachers, "describe_teacher", lambda *_: _Described())
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
    modality = "image"


def test_the_teacher_that_knows_the_class_comes_before_noise(recipe: Recipe) -> None:
    ranking = rank(open_setup(recipe, "rank"))
    rows = ranking.rows
    by_teachers = {tuple(row["teachers"]): row for row in rows}
    assert [(row["val_accuracy"], row["log_me"]) for row in rows] == sorted(
        ((row["val_accuracy"], row["log_me"]) for row in rows), reverse=True
    )
    assert rows[-1]["teachers"] == ["noise"]
    assert by_teachers[("knowing",)]["val_accuracy"] == 1.0
    shard = open_store(recipe.workspace, "train", ["knowing"]).read_shard(0)
    assert by_teachers[("knowing",)]["log_me"] == pytest.approx(log_me(shard["features"], shard["label"])[0])
    assert pq.read_table(Path(recipe.workspace) / "rank.parquet").to_pylist() == rows
    assert by_teachers[("knowing",)]["knn_accuracy"] == 1.0 > by_teachers[("noise",)]["knn_accuracy"]
    facts = json.loads((Path(recipe.workspace) / "rank.json").read_text())
    assert facts["rows"] == rows and facts["teachers"] == ["noise", "knowing"]
    knows = {knowledge["teacher"]: knowledge for knowledge in facts["knowledge"]}
    assert knows["knowing"]["r2"] > 0.9 and knows["knowing"]["alignment"] > 0.9
    assert knows["noise"]["r2"] <= knows["noise"]["least_r2"] and abs(knows["noise"]["alignment"]) < 0.2
    assert [line.split(":")[0] for line in facts["advice"][:2]] == ["noise", "knowing"] and facts[
        "advice"
    ] == ranking.advice
    assert (Path(recipe.workspace) / "rank.png").read_bytes().startswith(b"\x89PNG")


def test_the_verb_shows_what_each_teacher_knows_and_says_what_to_expect(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    show_ranking(recipe, rank(open_setup(recipe, "rank")))
    shown = " ".join(capsys.readouterr().out.split())
    assert "Each teacher alone" in shown and "label CKA" in shown
    assert "noise: its features say nothing about the labels beyond chance" in shown
    assert "knowing: its features know the labels, and its kernel shows them" in shown


def test_cka_is_that_of_the_definition_and_does_not_see_rotations() -> None:
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(300, 6)), random.normal(size=(300, 4))
    rotation, _ = np.linalg.qr(random.normal(size=(6, 6)))
    features = np.concatenate([x, 3 * x @ rotation + 5, noise], axis=1)
    covariance = _Covariance(16)
    for start in range(0, 300, 70):
        covariance.update(features[start : start + 70])
    cka = covariance.cka([np.arange(6), np.arange(6, 12), np.arange(12, 16)])

    def kernel(block: np.ndarray) -> np.ndarray:
        centred = block - block.mean(0)
        return centred @ centred.T

    k, m = kernel(x), kernel(noise)
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert cka[0, 2] == pytest.approx(expected) and cka[0, 2] < 0.1
    assert cka[0, 1] == pytest.approx(1.0) and np.allclose(cka, cka.T)


def test_cka_of_features_whose_mean_is_large_beside_their_spread() -> None:
    noise = np.random.default_rng(0).normal(size=(1000, 12))
    small, large = _Covariance(12), _Covariance(12)
    for start in range(0, 1000, 300):
        small.update(noise[start : start + 300].astype(np.float32))
        large.update((noise[start : start + 300] + 1000).astype(np.float32))
    parts = [np.arange(6), np.arange(6, 12)]
    assert large.cka(parts)[0, 1] == pytest.approx(small.cka(parts)[0, 1], rel=1e-3) and small.cka(parts)[0, 1] < 0.01


def test_samples_without_one_class_each_are_not_ranked_and_their_task_is_told(recipe: Recipe) -> None:
    setup = open_setup(recipe, "rank")
    setup.stores["train"].manifest["task"] = "regression"
    with pytest.raises(InputError, match="the task of these samples is regression. 'aft-ray search' tries"):
        ranking_of(setup)


def test_without_teachers_there_is_nothing_to_rank(recipe: Recipe) -> None:
    none = recipe.model_copy(
        update={"teachers": (), "regularizer": recipe.regularizer.model_copy(update={"name": "none"})}
    )
    with pytest.raises(InputError, match="there is nothing to rank"):
        rank(open_setup(none, "rank"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_labels_is_told_in_a_line(split: str, tmp_path: Path) -> None:
    without = getattr(DATA, split)
    without = replace(without, labels=np.full_like(without.labels, -1))
    given = made_workspace(tmp_path, data=replace(DATA, **{split: without}))
    with pytest.raises(InputError, match=f"^No sample of the {split} split has a label: there is nothing to rank"):
        rank(open_setup(given, "rank"))


def test_a_teacher_whose_features_are_all_zero_is_the_last_and_like_nothing(tmp_path: Path) -> None:
    dead: dict[str, Any] = {
        name: replace(split, features={**split.features, "one": np.zeros_like(split.features["one"])})
        for name, split in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    }
    given = made_workspace(tmp_path, {"search.teachers": "singles"}, replace(DATA, **dead))
    ranking = ranking_of(open_setup(given, "rank"))
    assert [row["teachers"] for row in ranking.rows] == [["two"], ["one"]]
    assert ranking.rows[-1]["log_me"] == -math.inf and ranking.cka.tolist() == [[0.0, 0.0], [0.0, 1.0]]
