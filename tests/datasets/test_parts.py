"""A data set that is read in parts has the listing that it has when it is read at once."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from aft_ray.datasets.items import Coded, Item, Items
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.parts import listing_of, scanned
from aft_ray.datasets.sources.webdataset import Tars, list_webdataset
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig


def tars(folder: Path, labels: list[list[str | None]]) -> DatasetConfig:
    """A tar for each list of labels; None is a sample without one."""
    folder.mkdir()
    for number, of_tar in enumerate(labels):
        with tarfile.open(folder / f"{number}.tar", "w") as opened:
            for place, label in enumerate(of_tar):
                for suffix, text in ((".txt", f"text {number} {place}"), (".cls", label)):
                    if text is not None:
                        member = tarfile.TarInfo(f"{place}{suffix}")
                        member.size = len(text)
                        opened.addfile(member, io.BytesIO(text.encode()))
    return DatasetConfig(source="webdataset", path=str(folder))


def test_labels_that_another_part_brings_first_mean_the_same(tmp_path: Path) -> None:
    config = tars(tmp_path / "data", [["cat", None, "dog"], ["emu", "dog", "dog"], [], ["ant", "cat"]])
    found = list_webdataset(config)
    assert found.classes == ("ant", "cat", "dog", "emu")
    assert [item.label for item in found.items] == [1, -1, 2, 3, 2, 2, 0, 1]
    assert [item.sample_id for item in found.items] == ["0/0", "0/1", "0/2", "1/0", "1/1", "1/2", "3/0", "3/1"]
    assert [found.read(place) for place in range(3)] == ["text 0 0", "text 0 1", "text 0 2"]
    keys = ["0/0", "0/0", "0/1", "0/2", "0/2", *(key for key in ("1/0", "1/1", "1/2", "3/0", "3/1") for _ in range(2))]
    pairs = [[key, 8 if first else 3] for key, first in zip(keys, [1, 0, 1, 1, 0, *[1, 0] * 5], strict=True)]
    assert found.facts == {"tars": fingerprint(pairs)}  # as one process has always written it


def test_a_plan_and_its_readers_travel_to_other_processes(tmp_path: Path) -> None:
    config = tars(tmp_path / "data", [["a", "b"] * 4, ["b", "c"] * 3])
    plan = pickle.loads(pickle.dumps(Tars.of(config)))
    parts = [pickle.loads(pickle.dumps(part)) for part in scanned(plan)]
    found, here = listing_of(plan, parts), list_webdataset(config)
    assert found.items == here.items and found.facts == here.facts and found.classes == here.classes
    assert isinstance(found.read, Lookup)
    some = np.array([9, 2, 13])
    read = pickle.loads(pickle.dumps(found.read.take(some)))
    assert (
        [read(place) for place in range(3)]
        == [here.read(place) for place in some]
        == ["text 1 1", "text 0 2", "text 1 5"]
    )


def test_faults_of_all_parts_are_told_with_their_number(tmp_path: Path) -> None:
    config = tars(tmp_path / "data", [["a"], ["b"]]).model_copy(update={"task": "regression"})
    with pytest.raises(InputError, match=r"(?s)0/0: label 'a' is not a number\..*1/0: label 'b' is not a number\."):
        list_webdataset(config)


def test_parts_with_and_without_groups_are_joined() -> None:
    one, two = Items.of((Item("a", 0), Item("b", 0))), Items.of((Item("c", 0, 7, "test", "g"),))
    found = Items.joined([one, two], Coded((0, 1), np.array([1, 0, 1], np.int32)))
    assert found == (Item("a", 1), Item("b", 0), Item("c", 1, 7, "test", "g"))
    assert Items.joined([one, one], Coded((0,), np.zeros(4, np.int32))).groups is None
