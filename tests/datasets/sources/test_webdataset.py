"""Tars in the form of WebDataset become samples; unsafe members are refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from aft_ray import datasets
from aft_ray.datasets import list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import open_store
from tests.helpers.hub_data import png
from tests.helpers.tables import dataset, recipe


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_webdataset_tars(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "test"):
        with tarfile.open(raw / f"{split}-000.tar", "w") as tar:
            for index in range(40):
                add_member(tar, f"a/{index:04d}.png", png(index))
                add_member(tar, f"a/{index:04d}.txt", f"picture {index}".encode())
                add_member(tar, f"a/{index:04d}.cls", str(index % 2).encode())
    given = recipe(tmp_path, source="webdataset", path=str(raw), label_names=("no", "yes"))
    assert datasets.faults(given.dataset) == []
    manifests = prepare(given)
    assert manifests["test"]["num_samples"] == 40 and manifests["test"]["modality"] == "image+text"
    shard = open_store(given.workspace, "test").read_shard(0)
    row = int(shard["sample_id"][0][-4:])
    assert shard["sample_id"][0] == f"test-000/a/{row:04d}"
    assert (shard["text"][0], shard["image"][0], shard["label"][0]) == (f"picture {row}", png(row), row % 2)


def test_webdataset_labels_in_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(4):
            add_member(tar, f"{index}.txt", b"x")
            add_member(tar, f"{index}.json", json.dumps({"size": index / 2}).encode())
    config = dataset(source="webdataset", path=str(tmp_path / "a.tar"), columns={"label": "size"}, task="regression")
    assert [item.label for item in list_samples(config).items] == [(0.0,), (0.5,), (1.0,), (1.5,)]
    with pytest.raises(InputError, match="a/0.json has no key label. Keys: size."):
        list_samples(dataset(source="webdataset", path=str(tmp_path / "a.tar")))


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png"])
def test_members_that_lead_out_of_a_tar_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, name, b"x")
    with pytest.raises(InputError, match="is no plain file inside the tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))
    (tmp_path / "a.tar").write_bytes(gzip.compress(b"no tar"))
    with pytest.raises(InputError, match="is no plain tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match="'1.png' is no plain file inside the tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))
