from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.store.kept_entries import check_note, delete_kept_entries, keep_entries, kept_entries
from aft_ray.store.own_files import delete_own_files
from aft_ray.store.parquet import features_table
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.workspace import Workspace

FINGERPRINT = {"model": "one"}


@pytest.fixture
def directory(tmp_path: Path) -> ShardDirectory:
    return Workspace.at(tmp_path).features("one", "train")


def write(directory: ShardDirectory, shard: int, value: float = 1.0) -> dict[str, Any]:
    table = features_table([f"{shard}-{row}" for row in range(3)], np.full((3, 4), value, np.float32))
    return directory.write_shard(shard, table, FINGERPRINT)


def test_entries_of_all_ranges_are_found_those_of_a_range_s_earlier_process_too(directory: ShardDirectory) -> None:
    written = {shard: write(directory, shard) for shard in range(4)}
    keep_entries(directory, 0, 2, FINGERPRINT, {0: written[0]})
    keep_entries(directory, 0, 2, FINGERPRINT, {2: written[2]})
    keep_entries(directory, 1, 2, FINGERPRINT, {1: written[1]})
    found = kept_entries(directory, FINGERPRINT)
    assert found == {shard: written[shard] for shard in range(3)}
    assert directory.entries(4, found) == written, "as if every shard were read again"
    assert kept_entries(directory, {"model": "other"}) == {}
    delete_kept_entries(directory)
    assert kept_entries(directory, FINGERPRINT) == {} and len(directory.names()) == 4


def test_a_shard_that_was_written_again_or_deleted_does_not_count(directory: ShardDirectory) -> None:
    keep_entries(directory, 0, 1, FINGERPRINT, {shard: write(directory, shard) for shard in range(3)})
    write(directory, 1, value=2.0)  # as many bytes
    directory.delete_file(directory.shard_name(2))
    assert list(kept_entries(directory, FINGERPRINT)) == [0]


def test_a_damaged_file_is_named_with_the_way_out_and_new_features_delete_it(directory: ShardDirectory) -> None:
    keep_entries(directory, 3, 8, FINGERPRINT, {3: write(directory, 3)})
    place = Path(directory.path, ".entries-3-of-8.json")
    place.write_bytes(place.read_bytes().replace(b"num_samples", b"num_sample5"))
    with pytest.raises(
        InputError, match=".entries-3-of-8.json is damaged: .* Delete it: its shards are then read again."
    ):
        kept_entries(directory, FINGERPRINT)
    delete_own_files(directory)
    assert directory.names() == []


def test_a_file_of_somebody_else_with_a_note_s_name_is_named_and_neither_replaced_nor_deleted(
    directory: ShardDirectory,
) -> None:
    written = {shard: write(directory, shard) for shard in range(2)}
    keep_entries(directory, 0, 2, FINGERPRINT, {0: written[0]})
    other = Path(directory.path, ".entries-1-of-2.json")
    other.write_text('{"mine": 1}')
    assert kept_entries(directory, FINGERPRINT) == {0: written[0]}
    check_note(directory, 0, 2)
    with pytest.raises(InputError, match=r"entries-1-of-2.json was not written by 'aft-ray extract'. Move it away."):
        check_note(directory, 1, 2)
    with pytest.raises(InputError):
        keep_entries(directory, 1, 2, FINGERPRINT, {1: written[1]})
    delete_kept_entries(directory)
    delete_own_files(directory)
    assert directory.names() == [other.name] and other.read_text() == '{"mine": 1}'
