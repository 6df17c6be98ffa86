"""The CPU stage of extraction: samples shards -> each teacher's inputs.

It runs in many light processes, so nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from aft_ray.cluster.attempts import Watch
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.errors import InputError
from aft_ray.store.contents import contents
from aft_ray.store.quarantine import UNREADABLE, check_quarantined, quarantined_sample
from aft_ray.store.workspace import Workspace

CROPS = "crops/"
"""Prefix of the pipeline's columns that hold a teacher's inputs."""


class MissingShard(NamedTuple):
    """A samples shard and the teachers that lack its features. Millions of these may wait in the driver.

    identity: of the samples shard, see `shard_identity`.
    """

    split: str
    shard: int
    identity: str
    teachers: Sequence[str]


@dataclass(frozen=True)
class ReadShard:
    """Reads a MissingShard, given as JSON, and makes the inputs of the teachers that lack it.

    Its row has `split`, `shard`, `teachers` (their names, as JSON), `sample_id`, `quarantined` (samples by row, as JSON) and
    `crops/<teacher>`, a teacher's inputs.
    Raises InputError if a shard has more than the watch's `max_bad_samples` pictures that cannot be read, or is not the
    shard that the manifest lists.
    """

    workspace: Workspace
    descriptions: Mapping[str, TeacherDescription]
    watch: Watch

    def __call__(self, planned: dict[str, Any]) -> dict[str, Any]:
        missing = MissingShard(*json.loads(planned["missing"]))
        table = self.workspace.samples(missing.split).read_shard(missing.shard, identity=missing.identity)
        wanted = {name: about for name, about in self.descriptions.items() if name in missing.teachers}

        def work_alone(index: int | None) -> None:
            make_inputs(table.slice(index or 0, int(index is not None)), wanted)

        shard = f"shard {missing.shard} of {missing.split}"
        sample_ids = table.column("sample_id").to_pylist()
        quarantined: dict[int, dict[str, str]] = {}
        left_out = self.watch.begin(shard, sample_ids, quarantined, work_alone)
        inputs, unreadable = make_inputs(table, wanted, left_out)
        quarantined |= unreadable
        check_quarantined(list(quarantined.values()), self.watch.max_bad_samples)
        self.watch.done(shard)
        return {
            "split": missing.split,
            "shard": missing.shard,
            "teachers": json.dumps(missing.teachers),
            "sample_id": sample_ids,
            "quarantined": json.dumps(quarantined),
            **{CROPS + name: inputs.get(name, []) for name in self.descriptions},
        }


def make_inputs(
    table: pa.Table, descriptions: Mapping[str, TeacherDescription], left_out: Collection[int] = ()
) -> tuple[dict[str, Any], dict[int, dict[str, str]]]:
    """Each teacher's inputs of a samples shard, n texts or (n, size, size, 3) uint8 crops, and the unreadable samples by row.

    Each picture is decoded once. Crops of unreadable samples and of the rows in `left_out` are zeros.
    """
    inputs: dict[str, Any] = {}
    transforms = {}
    for name, description in descriptions.items():
        if description.transform is None:
            inputs[name] = table.column("text").to_pylist()
        else:
            transforms[name], size = description.transform, description.transform.size
            inputs[name] = np.zeros((table.num_rows, size, size, 3), np.uint8)
    quarantined: dict[int, dict[str, str]] = {}
    if not transforms:
        return inputs, quarantined
    rows = [row for row in range(table.num_rows) if row not in left_out]
    for row, content in zip(rows, contents(table, rows), strict=True):
        try:
            picture = next(iter(transforms.values())).decode(content())
            sample_id = table.column("sample_id")[row].as_py()
            for name, transform in transforms.items():
                view, crop = descriptions[name].view, transform.crop(picture)
                inputs[name][row] = view.of(crop, sample_id) if view else crop
        except InputError:
            raise
        except UNREADABLE as error:
            quarantined[row] = quarantined_sample(table.column("sample_id")[row].as_py(), error)
    return inputs, quarantined
