"""What somebody may have prepared: each is refused in one line, nothing of it runs, nothing leaves the workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from aft_ray.cli import main
from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.plan import plan_extraction
from aft_ray.extraction.reading import ReadShard
from aft_ray.models.students import build_student
from aft_ray.models.teachers import build_teacher
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig, TeacherConfig
from aft_ray.store.parquet import features_table
from aft_ray.store.shards import ShardDirectory, samples_fingerprint
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from tests.helpers.hub import Payload

pytestmark = pytest.mark.slow

TEACHER = {"name": "means", "model": "tests.helpers.own_teachers:Means"}


@pytest.fixture
def recipe(tmp_path: Path, image_folder: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 10},
            "teachers": [TEACHER],
            "student": {"model": "tiny:cnn"},
        }
    )


def written(recipe: Recipe, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return str(path)


def everything_in(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.mark.parametrize("what", ["teacher", "student"])
def test_code_in_a_weights_file_is_refused_and_not_executed(what: str, tmp_path: Path) -> None:
    state = timm.create_model("test_efficientnet").state_dict()
    torch.save(state | {"classifier.bias": Payload(tmp_path / "executed")}, tmp_path / "weights.pth")
    given = {"model": "timm:test_efficientnet", "weights": str(tmp_path / "weights.pth")}
    with pytest.raises(InputError, match="pickled objects, which could execute code"):
        if what == "teacher":
            build_teacher(TeacherConfig.model_validate(given), torch.device("cpu"))
        else:
            build_student(StudentConfig.model_validate(given), 2)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "override",
    [
        "run=../../outside",
        "run=/tmp/outside",
        "run=..",
        "teachers=[{name: ../../outside, model: 'timm:test_vit'}]",
        "search.teachers=[[../../outside]]",
    ],
)
def test_names_cannot_lead_out_of_the_workspace(
    override: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(recipe, tmp_path)
    before = everything_in(tmp_path.parent)
    for verb in ("prepare", "train", "report"):
        assert main([verb, path, override]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert override.partition("=")[0].partition(".")[0] in line
    assert everything_in(tmp_path.parent) == before


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../../passwd.png", "a/../../passwd.png"])
def test_a_tar_s_members_cannot_lead_out_of_it(
    name: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for member in ("1.png", name):
            info = tarfile.TarInfo(member)
            info.size = 1
            tar.addfile(info, BytesIO(b"x"))
    dataset = f"dataset={{source: webdataset, path: {tmp_path / 'a.tar'}}}"
    assert main(["prepare", written(recipe, tmp_path), dataset]) == 2
    assert f"a.tar: member {name!r} is no plain file inside the tar." in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_decompression_bomb_is_an_unreadable_sample(
    recipe: Recipe, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = image_folder / "top" / "bomb.png"
    Image.new("1", (10_000, 10_000)).save(bomb)  # 13 kB; 300 MB as RGB
    path = written(recipe, tmp_path)
    reason = "Sample top/bomb.png cannot be read: it has 10000 x 10000 pixels, more than "
    assert main(["prepare", path]) == 2
    assert reason in capsys.readouterr().err
    assert main(["prepare", path, "dataset.max_bad_samples=1"]) == 0
    manifests = [Workspace.at(recipe.workspace).samples(s).manifest() or {} for s in ("train", "validation", "test")]
    assert [bad["sample_id"] for manifest in manifests for bad in manifest["quarantined"]] == ["top/bomb.png"]

    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom aft_ray.models.images import decode\n"
        "content = Path(sys.argv[1]).read_bytes()\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = used()\n"
        "try: decode(content)\nexcept ValueError: print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bomb)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4_000  # KiB


def swap(directory: ShardDirectory, other: ShardDirectory, index: int, other_index: int) -> None:
    shutil.copyfile(Path(other.path, other.shard_name(other_index)), Path(directory.path, directory.shard_name(index)))


@pytest.mark.parametrize("origin", ["same split", "another workspace"])
def test_a_samples_shard_in_another_s_place_is_found(
    origin: str, recipe: Recipe, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(recipe)
    samples = other = Workspace.at(recipe.workspace).samples("train")
    if origin == "another workspace":
        shutil.move(image_folder / "top", image_folder / "roof")  # the same pictures under another class's name
        elsewhere = recipe.model_copy(update={"workspace": str(tmp_path / "elsewhere")})
        prepare(elsewhere)
        other = Workspace.at(elsewhere.workspace).samples("train")
    plan = plan_extraction(recipe)
    swap(samples, other, 0, 1)
    assert main(["verify", recipe.workspace]) == 1
    assert "part-00000.parquet is damaged: its checksum is" in capsys.readouterr().err
    with pytest.raises(InputError, match="part-00000.parquet .* is not the shard that the manifest lists"):
        open_store(recipe.workspace, "train").read_shard(0)
    watch = Watch(AttemptsHere(), "decoding", 0)
    with pytest.raises(InputError, match="part-00000.parquet .* is not the shard that the manifest lists"):
        ReadShard(plan.workspace, plan.descriptions, watch)(plan.missing[0])


def test_a_features_shard_in_another_s_place_is_found(recipe: Recipe) -> None:
    prepare(recipe)
    workspace = Workspace.at(recipe.workspace)
    samples = workspace.samples("train")
    manifest = samples.manifest() or {}
    random = np.random.default_rng(0)
    for teacher in ("means", "others"):
        fingerprint = {"model": teacher, "samples": samples_fingerprint(manifest)}
        directory = workspace.features(teacher, "train")
        for shard in range(len(manifest["shards"])):
            ids = samples.read_shard(shard, ["sample_id"]).column(0).combine_chunks()
            directory.write_shard(shard, features_table(ids, random.normal(size=(len(ids), 4))), fingerprint)
        directory.write_manifest(len(manifest["shards"]), fingerprint, feature_dim=4)
    swap(workspace.features("means", "train"), workspace.features("others", "train"), 1, 1)
    store = open_store(recipe.workspace, "train", ["means", "others"])
    store.read_shard(0)
    with pytest.raises(InputError, match="means/train/part-00001.parquet .* not the shard that the manifest lists"):
        store.read_shard(1)


SECRETS = {
    "workspace": "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG@bucket/work",
    "dataset.path": "abfss://user:hunter2@account.dfs.core.windows.net/data",
    "teachers": "[{model: 'tests.helpers.own_teachers:Means', options: {log: 'https://x.org/a?sig=abc%3D'}}]",
    "student.weights": "https://host/weights.safetensors?X-Amz-Signature=0123",
    "dataset.revision": "hf_abcdefghijABCDEFGHIJ0123456789abcd",
}


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(
    key: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(recipe, tmp_path)
    before = everything_in(tmp_path)
    for verb in ("prepare", "train"):
        assert main([verb, path, f"{key}={SECRETS[key]}"]) == 2
        out, err = capsys.readouterr()
        assert f"aft-ray: {key}" in err and "must not hold a secret" in err
        assert SECRETS[key] not in out + err and "hunter2" not in err and "wJalr" not in err
    assert everything_in(tmp_path) == before
    with pytest.raises(InputError, match="must not hold a secret"):
        Workspace.at(SECRETS["workspace"])


@pytest.mark.parametrize(
    "harmless",
    [
        "s3://bucket/a:b?endpoint_override=127.0.0.1:9000&scheme=http",
        "https://host:8080/models@main/x",
        "hf-hub:timm/vit_base_patch16_224.augreg_in1k@0123456789",
        "package://module/file.pth",
        "Premise: {premise}\nHypothesis: {hypothesis}? token=",
    ],
)
def test_what_is_no_secret_is_taken(harmless: str) -> None:
    assert StudentConfig(model=harmless).model == harmless


@pytest.mark.ray
def test_a_cluster_of_our_own_listens_on_the_loopback_interface_alone() -> None:
    """Ray's own services; its workers' sockets are among them."""
    code = (
        "from aft_ray.commands.environment import ray_cluster, set_environment\nset_environment()\nimport ray, psutil\n"
        "with ray_cluster(None, ''):\n"
        "    ray.get(ray.remote(lambda: None).remote())\n"
        "    for process in psutil.Process().children(recursive=True):\n"
        "        for socket in process.net_connections('inet'):\n"
        "            if socket.status == 'LISTEN': print(process.name(), socket.laddr.ip)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    sockets = done.stdout.splitlines()
    assert {"gcs_server", "raylet"} <= {line.split()[0] for line in sockets}
    assert [line for line in sockets if not line.endswith("127.0.0.1")] == []
