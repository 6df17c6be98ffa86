from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.extraction.reading import CROPS, MissingShard, ReadShard, make_inputs
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import shard_identity
from aft_ray.store.workspace import Workspace

SMALL = TeacherDescription("image", ImageTransform(4), {})
LARGE = TeacherDescription("image", ImageTransform(12), {})
TEXT = TeacherDescription("text", None, {})


def table(image_folder: Path) -> pa.Table:
    names = ["top/00.png", "top/01.png", "bottom/00.png"]
    contents = [(image_folder / name).read_bytes() for name in names]
    contents[1] = contents[1][:300]
    return pa.table([names, [1, 1, 0], contents, ["a", "b", "c"]], schema=samples_schema("image+text"))


def test_every_teacher_gets_its_own_crop_and_a_broken_picture_is_told(image_folder: Path) -> None:
    inputs, bad = make_inputs(table(image_folder), {"small": SMALL, "large": LARGE, "text": TEXT})
    assert inputs["small"].shape == (3, 4, 4, 3) and inputs["large"].shape == (3, 12, 12, 3)
    assert inputs["text"] == ["a", "b", "c"]
    whole = (image_folder / "bottom/00.png").read_bytes()
    np.testing.assert_array_equal(inputs["large"][2], ImageTransform(12)(whole))
    assert list(bad) == [1] and bad[1]["sample_id"] == "top/01.png" and not inputs["small"][1].any()


def test_a_shard_becomes_a_row_of_what_its_teachers_take(tmp_path: Path, image_folder: Path) -> None:
    workspace = Workspace.at(tmp_path)
    samples = table(image_folder).drop_columns(["text"])
    entries = [workspace.samples("train").write_shard(shard, samples, {}) for shard in range(2)]
    identities = [shard_identity({"fingerprint": {}, "shards": entries}, shard) for shard in range(2)]
    planned = [
        MissingShard("train", 0, identities[0], ["small", "large"]),
        MissingShard("train", 1, identities[1], ["large"]),
    ]
    descriptions, watch = {"small": SMALL, "large": LARGE}, partial(Watch, AttemptsHere(), "decoding")
    both, one = map(ReadShard(workspace, descriptions, watch(1)), planned)
    assert both["sample_id"] == samples.column("sample_id").to_pylist()
    assert len(both[CROPS + "small"]) == len(one[CROPS + "large"]) == 3 and len(one[CROPS + "small"]) == 0
    assert both["quarantined"][1]["sample_id"] == "top/01.png"
    with pytest.raises(InputError, match="Sample top/01.png cannot be read"):
        ReadShard(workspace, descriptions, watch(0))(planned[0])
