"""Imports go strictly downward (docs: CONTRIBUTING), and a foreign library is imported in its one adapter."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.helpers import ROOT

LAYERS = (
    ("cli",),
    ("commands",),
    ("study",),
    ("report",),
    ("search", "extraction", "export"),
    ("training", "datasets"),
    ("cluster",),
    ("store", "models"),
    ("recipe", "regularizers"),
)
"""From the top down. A folder imports itself and the layers below its own, never its neighbours."""
ADAPTERS = {
    "datasets": {"hub"},
    "mlflow": {"trackers"},
    "onnxruntime": {"onnx_file"},
    "optuna": {"proposals"},
    "obstore": {"conditional"},
    "open_clip": {"open_clip_models", "open_clip_teacher", "open_clip_student"},
    "tensorboardX": {"trackers"},
    "timm": {"timm_models", "timm_teacher", "timm_student"},
    "transformers": {"transformers_teacher", "transformers_checkpoint", "transformers_student", "text"},
    "wandb": {"trackers"},
}
RAY_FOLDERS = {"commands", "cluster", "extraction", "export", "training", "search"}
RAY_FREE = ("fit", "inputs")
"""Parts of `training` that stay plain PyTorch."""

LEVEL = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}


def modules() -> list[Path]:
    return sorted((ROOT / "aft_ray").rglob("*.py"))


def scripts() -> list[Path]:
    return [path for path in sorted((ROOT / "jobs").rglob("*.py")) if "benchmarks" not in path.parts]


def folder(path: Path) -> str:
    """The folder of `aft_ray` that a file lies in, or the module itself; `aft_ray` for the package itself."""
    inside = path.relative_to(ROOT / "aft_ray").parts[0].removesuffix(".py")
    return "aft_ray" if inside == "__init__" else inside


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported(path: Path) -> tuple[str, ...]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return (*plain, *(f"{node.module}.{alias.name}" for node in named for alias in node.names))


def test_every_module_lies_in_a_layer() -> None:
    assert {folder(path) for path in modules()} <= {"aft_ray", *LEVEL}


def test_imports_go_downward() -> None:
    upward = []
    for path in modules():
        own = folder(path)
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("aft_ray.") else ""
            if other in LEVEL and other != own and own in LEVEL and LEVEL[other] <= LEVEL[own]:
                upward.append(f"{path.relative_to(ROOT)} imports {name}")
    assert upward == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = {dotted(path): path for path in modules()}
    edges = {
        name: {known_name(target, known) for target in imported(path)} - {name, ""} for name, path in known.items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def known_name(target: str, known: dict[str, Path]) -> str:
    """The module of ours that `target` names, which may be something inside it; empty for a foreign one."""
    return target if target in known else known_name(target.rpartition(".")[0], known) if target else ""


def test_ray_appears_only_where_the_cluster_is_used() -> None:
    users = {path for path in modules() if any(name.split(".")[0] == "ray" for name in imported(path))}
    assert {folder(path) for path in users} <= RAY_FOLDERS
    plain = [path for path in users if folder(path) == "training" and any(part in path.parts for part in RAY_FREE)]
    assert plain == []


def test_a_foreign_library_is_imported_in_its_adapter() -> None:
    for library, adapters in ADAPTERS.items():
        users = {
            path.stem
            for path in [*modules(), *scripts()]
            if any(name.split(".")[0] == library for name in imported(path))
        }
        assert users <= adapters, library


def test_no_benchmark_imports_from_the_tests() -> None:
    benchmarks = (ROOT / "jobs" / "benchmarks").rglob("*.py")
    assert [path.name for path in benchmarks if any(name.startswith("tests") for name in imported(path))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "modules, absent",
    [
        ("aft_ray.extraction.reading, aft_ray.datasets.unlabelled", "torch"),
        ("aft_ray.extraction.extract", "torch"),
        ("aft_ray.extraction.extract", "ray.data"),
        ("aft_ray.search, aft_ray.commands.functions.verbs", "torch"),
        ("aft_ray.commands.functions.verbs", "ray"),
        ("aft_ray", "pydantic"),
        ("aft_ray.training.train, aft_ray.training.fit, aft_ray.export.evaluate", "ray"),
        ("aft_ray.search.search", "ray"),
        ("aft_ray.training.train, aft_ray.training.fit, aft_ray.export.evaluate", "scipy"),
    ],
)
def test_processes_that_start_often_do_not_import_what_they_have_no_use_for(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_mistyped_key_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    """Which takes seconds."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("workspace: work\ndatset: {source: image_folder}\n")
    verbs = "prepare plan extract rank search train evaluate report pipeline export predict"
    code = f"""
import sys
from aft_ray.cli import main

for verb in {verbs!r}.split():
    assert main([verb, {str(recipe)!r}, *(["photos"] if verb == "predict" else [])]) == 2, verb
    assert not {{"torch", "ray"}} & sys.modules.keys(), verb
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Did you mean 'dataset'?") == len(verbs.split())
