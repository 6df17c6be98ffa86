"""Imports go strictly downward (design, section 4), and foreign libraries are imported in their one adapter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = {
    **dict.fromkeys(
        [
            "aft_ray",
            "sections",
            "config",
            "schema",
            "distributed",
            "kernels",
            "images",
            "text",
            "weights",
            "progress",
            "prefetch",
        ],
        0,
    ),
    **dict.fromkeys(["search_section", "results", "plots", "rank_picture", "quarantine"], 0),
    **dict.fromkeys(
        ["attempts", "card", "model_files", "timm_models", "order", "processors", "gauges", "scores", "shared"], 0.5
    ),
    **dict.fromkeys(
        ["datasets", "teachers", "students", "regularizers", "shards", "store", "checkpoint", "metrics"], 1
    ),
    **dict.fromkeys(["gang", "open_clip_models"], 0.7),
    **dict.fromkeys(["ray_data"], 0.8),
    **dict.fromkeys(["trackers", "space"], 1.5),
    **dict.fromkeys(["proposals"], 1.7),
    **dict.fromkeys(["batches", "check", "crops", "lease", "onnx_file", "tally", "task", "trials", "unseen"], 2),
    **dict.fromkeys(["streaming"], 2.2),
    **dict.fromkeys(["data", "embedding", "feed", "fitted", "gradients", "optimise", "pictures"], 2.5),
    **dict.fromkeys(["schedulers"], 2.5),
    **dict.fromkeys(["fit", "prepare", "extract", "rank", "export"], 3),
    **dict.fromkeys(["plan", "train", "evaluate", "predict"], 3.5),
    **dict.fromkeys(["trial_training"], 3.7),
    **dict.fromkeys(["preflight", "submit"], 3.5),
    **dict.fromkeys(["search", "report"], 4),
    **dict.fromkeys(["pipeline", "search_plan"], 4.5),
    **dict.fromkeys(["show"], 4.7),
    **dict.fromkeys(["cli"], 5),
    **dict.fromkeys(["jobs"], 6),
}
SAME_LEVEL = {
    ("config", "sections"),
    ("config", "search_section"),
    ("search_section", "sections"),
    ("images", "config"),
    ("quarantine", "config"),
    ("store", "config"),
    ("store", "shards"),
    ("checkpoint", "shards"),
}
"""The few imports inside a level: errors, and a checkpoint's files lie in a workspace's directory."""
RAY_MODULES = {
    "extract",
    "gang",
    "gauges",
    "plan",
    "predict",
    "preflight",
    "ray_data",
    "schedulers",
    "submit",
    "train",
    "trial_training",
    "search",
    "cli",
}
ADAPTERS = {
    "datasets": {"hub"},
    "mlflow": {"trackers"},
    "onnxruntime": {"onnx_file"},
    "optuna": {"proposals"},
    "open_clip": {"open_clip_models", "open_clip_teacher", "open_clip_student"},
    "tensorboardX": {"trackers"},
    "timm": {"timm_models", "timm_teacher", "timm_student"},
    "transformers": {"transformers_teacher", "transformers_checkpoint", "transformers_student", "text"},
    "wandb": {"trackers"},
}


def modules() -> list[Path]:
    return sorted((ROOT / "aft_ray").rglob("*.py")) + sorted((ROOT / "jobs").rglob("*.py"))


def part(path: Path) -> str:
    """The module or package of aft_ray that a file belongs to; `jobs` for the scripts."""
    inside = path.relative_to(ROOT).parts
    if inside[0] == "jobs":
        return "jobs"
    return "aft_ray" if inside[1] == "__init__.py" else inside[1].removesuffix(".py")


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"aft_ray.{alias.name}" for alias in node.names] if node.module == "aft_ray" else [node.module]
    return names


def test_every_module_has_a_level() -> None:
    assert {part(path) for path in modules()} <= set(LEVELS)


def test_imports_go_downward() -> None:
    upward = []
    for path in modules():
        own = part(path)
        for name in imported(path):
            if not name.startswith("aft_ray."):
                continue
            other = name.split(".")[1]
            if other != own and LEVELS[other] >= LEVELS[own] and (own, other) not in SAME_LEVEL:
                upward.append(f"{path.relative_to(ROOT)} imports {other}")
    assert upward == []


def test_ray_appears_only_in_the_verbs_that_need_it() -> None:
    users = {part(path) for path in modules() if any(name.split(".")[0] == "ray" for name in imported(path))}
    assert users - {"jobs"} <= RAY_MODULES


def test_a_foreign_library_is_imported_in_its_adapter() -> None:
    for library, adapters in ADAPTERS.items():
        product = [path for path in modules() if "benchmarks" not in path.parts]
        users = {path.stem for path in product if any(name.split(".")[0] == library for name in imported(path))}
        assert users <= adapters, library


@pytest.mark.parametrize(
    "modules, absent",
    [("aft_ray.crops, aft_ray.unseen", "torch"), ("aft_ray.extract", "torch"), ("aft_ray.extract", "ray.data")],
)
def test_processes_that_start_often_do_not_import_what_they_have_no_use_for(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
