"""Speed of `Store.read_shard` from the page cache, against pyarrow's `read_table`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.store.parquet import features_table
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import samples_fingerprint
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace


def read(folder: Path, repeats: int) -> None:
    rows, width, shards = 512, 1536, 16
    workspace = Workspace.at(folder / "read")
    ids = [f"s{row:06d}" for row in range(rows)]
    samples = pa.table([ids, [0] * rows, [b"x" * 20_000] * rows], schema=samples_schema("image"))
    for shard in range(shards):
        workspace.samples("train").write_shard(shard, samples, {})
    manifest = workspace.samples("train").write_manifest(shards, {}, classes=["a"], modality="image")
    fingerprint = {"samples": samples_fingerprint(manifest)}
    features = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    print("| stored as | as float32 (n, T), GB/s | as stored, GB/s | pyarrow's read_table, GB/s |\n|---|---|---|---|")
    for dtype in ("float16", "float32"):
        directory = workspace.features(dtype, "train")
        for shard in range(shards):
            directory.write_shard(shard, features_table(ids, features, dtype), fingerprint)
        directory.write_manifest(shards, fingerprint, feature_dim=width)
        store = open_store(workspace, "train", [dtype])
        size = np.dtype(dtype).itemsize
        side_by_side = best_s(lambda store=store: [store.read_shard(k, ()) for k in range(shards)])
        stored = best_s(lambda store=store: [touch(store.read_shard(k, (), side_by_side=False)) for k in range(shards)])
        plain = best_s(lambda directory=directory: [directory.read_shard(k) for k in range(shards)])
        count = rows * width * shards / 1e9
        print(
            f"| {dtype} | {4 * count / side_by_side:.2f} | {size * count / stored:.2f} | {size * count / plain:.2f} |"
        )


def touch(shard: dict[str, Any]) -> int:
    """Reads every byte: a view of the file alone would cost nothing."""
    return int(shard["features"][0].view(np.uint8).reshape(-1).view(np.uint64).sum())


def best_s(act: Any) -> float:
    return min(timed(act) for _ in range(5))


def timed(act: Any) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
