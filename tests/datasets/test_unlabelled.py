"""Files that predict is asked about and that are no pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.datasets.unlabelled import DecodeRows, list_unseen
from aft_ray.models.images import ImageTransform


def test_pipes_devices_and_huge_files_are_told_and_never_opened(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:20])
    with (tmp_path / "sparse.png").open("wb") as stream:
        stream.truncate(50 << 30)
    unseen = list_unseen(str(tmp_path), ["image"])
    (part,) = unseen.rows(10)
    decoded = DecodeRows(unseen.root, [ImageTransform(size=8)], Watch(AttemptsHere(), "decoding", 9))(part)
    told = {part["id"][number]: reason for number, reason in decoded["errors"].items()}
    assert len(decoded["inputs0"]) == 1 and set(told) == set(part["id"]) - {"good.png"}
    assert told["sparse.png"] == "it has 53,687,091,200 bytes, more than 1,073,741,824"
    assert all(told.get(name, "it is no plain file") == "it is no plain file" for name in ("fifo.png", "zero.png"))


def test_an_object_store_s_files_are_left_out_and_told_as_a_disk_s_are(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png", "notes.txt", ".hidden.png", "__MACOSX/c.png", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name, "PNG")
    here = list_unseen(str(tmp_path), ["image"])
    there = list_unseen(f"fsspec+local://{tmp_path}", ["image"])
    assert there.table["id"].to_pylist() == here.table["id"].to_pylist() == ["a.png", "deep/b.png"]
    decoded = []
    for unseen in (here, there):
        (part,) = unseen.rows(10)
        decode = DecodeRows(unseen.root, [ImageTransform(size=8)], Watch(AttemptsHere(), "decoding", 9))
        decoded.append(decode(part))
    np.testing.assert_array_equal(decoded[0]["inputs0"], decoded[1]["inputs0"])
    assert len(decoded[1]["inputs0"]) == 2 and decoded[1]["errors"] == {}
    assert there.left_out == {**here.left_out, "hidden": 2} == {"hidden": 2, ".txt": 1, "no suffix": 1}
