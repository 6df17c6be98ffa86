"""A small workspace with samples, a search, its final runs and a run of its own, as the commands leave it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from aft_ray.recipe.config import Recipe, dump, override

TEACHERS = {"small": 6, "large": 10}
PROBES = {("small",): 0.5, ("large",): 0.7, ("small", "large"): 0.8}
TEST_ACCURACY = {"none": [0.84, 0.85, 0.83], "kd": [0.86, 0.87, 0.88], "aft": [0.90, 0.91, 0.92]}


def recipe_at(workspace: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": str(workspace),
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": name, "model": f"timm:{name}"} for name in TEACHERS],
            "student": {"model": "tiny:cnn"},
            "train": {"steps": 30, "labels_per_class": 10},
        }
    )


def trial(
    stage: str, method: str, beta: float, teachers: tuple[str, ...], seed: int = 0, **values: Any
) -> dict[str, Any]:
    name = f"{stage}-{method}-beta{beta:g}-{'_'.join(teachers) or 'no-teacher'}-seed{seed}"
    return {
        "trial": name,
        "stage": stage,
        "regularizer.name": method,
        "regularizer.beta": beta,
        "teachers": list(teachers),
        "train.seed": seed,
        "seed": seed,
        "val_accuracy": 0.8,
        "test_accuracy": None,
        "step": 20,
        "wall_time_s": 2.0,
        "status": "finished",
        "error": None,
    } | values


def searched() -> list[dict[str, Any]]:
    """AFT and KD at two betas and all combinations, standard transfer once, and a failure."""
    subsets = [("small",), ("large",), ("small", "large")]
    rows = [trial("search", "none", 0.0, ())]
    for method, (number, subset), beta in itertools.product(("aft", "kd"), enumerate(subsets), (1.0, 10.0)):
        rows.append(trial("search", method, beta, subset, val_accuracy=0.7 + 0.03 * number + 0.01 * beta))
    rows[1] |= {"status": "stopped", "step": 5}
    failed: dict[str, Any] = {
        "status": "failed",
        "val_accuracy": None,
        "wall_time_s": None,
        "error": "<img src=x> out of memory",
    }
    return [*rows, trial("search", "aft", 100.0, ("small",), **failed)]


def chosen(method: str) -> tuple[float, tuple[str, ...]]:
    return (0.0, ()) if method == "none" else (10.0, ("small", "large"))


def finals() -> list[dict[str, Any]]:
    return [
        trial("final", method, *chosen(method), seed, val_accuracy=accuracy, test_accuracy=accuracy)
        for method, accuracies in TEST_ACCURACY.items()
        for seed, accuracy in enumerate(accuracies, start=1)
    ]


def write_search(recipe: Recipe, rows: list[dict[str, Any]]) -> None:
    search = Path(recipe.workspace, "searches", recipe.run)
    search.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), search / "trials.parquet")
    for row in rows:
        if row["stage"] == "final":
            write_training(search / "trials" / row["trial"], recipe, row)


def write_training(directory: Path, recipe: Recipe, row: dict[str, Any]) -> None:
    """What `fit` leaves: a recipe, three evaluations and a student with gates for AFT."""
    teachers = [teacher.model_dump() for teacher in recipe.teachers if teacher.name in row["teachers"]]
    section = {"name": row["regularizer.name"], "beta": row["regularizer.beta"]}
    resolved = override(recipe, {"regularizer": section, "teachers": teachers, "train.seed": row["seed"]})
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(dump(resolved))
    history = []
    for step in (10, 20, 30):
        line: dict[str, Any] = {
            "step": step,
            "epoch": step / 10,
            "loss": 3 / step,
            "task_loss": 2 / step,
            "regularization": 0.1,
        }
        line |= {"val_accuracy": row["val_accuracy"], "val_loss": row.get("val_loss", 2.0), "samples_per_s": 100.0}
        for key, sign in (("val_accuracy", -1), ("val_loss", 1)):
            line[key] = None if line[key] is None else line[key] + sign / step
        if section["name"] == "aft":
            line |= {f"gate_mean/{teacher['name']}": 0.5 + step / 1000 for teacher in teachers}
        history.append(line)
    history[-1] |= {"test_accuracy": row["test_accuracy"], "test_loss": row.get("test_loss")}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    (directory / "student").mkdir()
    described = [{"name": t["name"], "model": t["model"], "feature_dim": TEACHERS[t["name"]]} for t in teachers]
    (directory / "student" / "student.json").write_text(json.dumps({"teachers": described}))
    width = sum(teacher["feature_dim"] for teacher in described)
    tensors = {"gate_logits": np.linspace(-1, 1, width, dtype=np.float32)} if section["name"] == "aft" else {}
    safetensors.numpy.save_file(tensors, directory / "student" / "regularizer.safetensors")


def write_samples(workspace: str, classes: list[str]) -> None:
    for split, count in {"train": 700, "validation": 100, "test": 1200}.items():
        manifest = {"num_samples": count, "classes": classes, "modality": "image", "fingerprint": {"split": split}}
        write_manifest(Path(workspace, "samples", split), manifest)
    for teacher, width in TEACHERS.items():
        made_by = {"model": f"timm:{teacher}", "weights": "0123456789abcdef" * 4, "transform": {"size": 64}}
        manifest = {"feature_dim": width, "fingerprint": made_by, "made_with": {"torch": "2.9.0", "timm": "1.0.20"}}
        write_manifest(Path(workspace, "features", teacher, "train"), manifest)


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    directory.mkdir(parents=True)
    count = manifest.get("num_samples", 0)
    shards = [{"file": "part-00000.parquet", "num_bytes": 0, "sha256": "0" * 64, "num_samples": count}]
    whole = {"num_samples": count, "quarantined": [], "shards": shards, **manifest}
    (directory / "manifest.json").write_text(json.dumps(whole))


def write_everything(recipe: Recipe) -> None:
    write_samples(recipe.workspace, ["zero", "one"])
    write_search(recipe, searched() + finals())
    ranked = [{"teachers": list(subset), "val_accuracy": probe} for subset, probe in PROBES.items()]
    Path(recipe.workspace, "rank.json").write_text(json.dumps({"rows": ranked}))
    run = trial("final", "aft", 3.0, ("small",), seed=7, test_accuracy=0.8)
    write_training(Path(recipe.workspace, "runs", "alone"), recipe, run)


def as_regression(row: dict[str, Any]) -> dict[str, Any]:
    """The same trial measured by its loss: the rate of its errors."""
    found = row | {
        f"{split}_loss": row[f"{split}_accuracy"] and 1 - row[f"{split}_accuracy"] for split in ("val", "test")
    }
    return found | {"val_accuracy": None, "test_accuracy": None}
