"""The CPU stage of extraction: samples shards -> each teacher's inputs.

It runs in many light processes, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from aft_ray.cluster.attempts import Watch
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.errors import InputError
from aft_ray.store.contents import contents, rows_by_picture
from aft_ray.store.quarantine import UNREADABLE, check_quarantined, quarantined_sample
from aft_ray.store.workspace import Workspace

CROPS = "crops/"
"""Prefix of a row's keys that hold a teacher's inputs."""


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
    """Reads a MissingShard and makes the inputs of the teachers that lack it.

    Its row has `split`, `shard`, `teachers` (their names), `sample_id`, `picture` (the number of each sample's picture),
    `quarantined` (samples by row) and `crops/<teacher>`, a teacher's inputs, one a picture or one a sample.
    Raises InputError if a shard has more than the watch's `max_bad_samples` pictures that cannot be read, or is not the
    shard that the manifest lists.
    """

    workspace: Workspace
    descriptions: Mapping[str, TeacherDescription]
    watch: Watch

    def __call__(self, missing: MissingShard) -> dict[str, Any]:
        table = self.workspace.samples(missing.split).read_shard(missing.shard, identity=missing.identity)
        wanted = {name: about for name, about in self.descriptions.items() if name in missing.teachers}

        rows_of = rows_by_picture(table)
        picture = np.empty(table.num_rows, int)
        for number, rows in enumerate(rows_of):
            picture[rows] = number

        def work_alone(number: int | None) -> None:
            make_inputs(table.slice(0, 0) if number is None else table.take(rows_of[number]), wanted)

        shard = f"shard {missing.shard} of {missing.split}"
        sample_ids = table.column("sample_id").to_pylist()
        crashing: dict[int, dict[str, str]] = {}
        left_out = self.watch.begin(shard, [sample_ids[rows[0]] for rows in rows_of], crashing, work_alone)
        inputs, quarantined = make_inputs(table, wanted, left_out)
        quarantined = by_row(crashing, picture, sample_ids) | quarantined
        check_quarantined(list(quarantined.values()), self.watch.max_bad_samples)
        self.watch.done(shard)
        return {
            "split": missing.split,
            "shard": missing.shard,
            "teachers": missing.teachers,
            "sample_id": sample_ids,
            "picture": picture,
            "quarantined": quarantined,
            **{CROPS + name: inputs.get(name, []) for name in self.descriptions},
        }


def make_inputs(
    table: pa.Table, descriptions: Mapping[str, TeacherDescription], left_out: Collection[int] = ()
) -> tuple[dict[str, Any], dict[int, dict[str, str]]]:
    """Each teacher's inputs of a samples shard, and the unreadable samples by row.

    Inputs are n texts, (m, size, size, 3) uint8 crops of its m pictures, or (n, size, size, 3) of a view of these, which depends
    on the sample. Each picture is decoded once. Crops of unreadable pictures and of those in `left_out` are zeros.
    """
    inputs: dict[str, Any] = {}
    transforms: dict[str, ImageTransform] = {}
    rows_of, sample_ids = rows_by_picture(table), table.column("sample_id").to_pylist()
    for name, description in descriptions.items():
        if description.transform is None:
            inputs[name] = table.column("text").to_pylist()
        else:
            transforms[name], size = description.transform, description.transform.size
            count = len(rows_of) if description.is_of_picture else table.num_rows
            inputs[name] = np.zeros((count, size, size, 3), np.uint8)
    quarantined: dict[int, dict[str, str]] = {}
    if not transforms:
        return inputs, quarantined
    numbers = [number for number in range(len(rows_of)) if number not in left_out]
    first_rows = [int(rows_of[number][0]) for number in numbers]
    for number, content in zip(numbers, contents(table, first_rows), strict=True):
        try:
            picture = next(iter(transforms.values())).decode(content())
            for name, transform in transforms.items():
                view, crop = descriptions[name].view, transform.crop(picture)
                if view is None:
                    inputs[name][number] = crop
                else:
                    inputs[name][rows_of[number]] = [view.of(crop, sample_ids[row]) for row in rows_of[number]]
        except InputError:
            raise
        except UNREADABLE as error:
            rows = rows_of[number].tolist()
            quarantined.update({row: quarantined_sample(sample_ids[row], error) for row in rows})
    return inputs, quarantined


def by_row(
    bad: Mapping[int, dict[str, str]], input_of: np.ndarray, sample_ids: Sequence[str]
) -> dict[int, dict[str, str]]:
    """Every sample with one of the quarantined inputs `bad`, by row. input_of: the number of each sample's input."""
    found = {row: bad[number] for row, number in enumerate(input_of.tolist()) if number in bad}
    return {row: {**sample, "sample_id": sample_ids[row]} for row, sample in found.items()}
