"""report: everything a workspace holds as one page that needs nothing else, and its tables as CSV.

Reads what `train` and `search` wrote, finished or not. The same workspace gives the same page, byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
import yaml
from markupsafe import Markup

from aft_ray.recipe.config import Recipe, dump, fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import printable
from aft_ray.report import pictures
from aft_ray.report.plots import COLOURS
from aft_ray.report.results import Entry, Group, Row, Training, headline, method_title, runs_in_words, summarize
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory


def report(recipe: Recipe) -> str:
    """Writes `report/index.html`, its tables as CSV and the recipe; returns the page's path or URL.

    Raises InputError if the workspace holds neither a run nor the recipe's search.
    """
    place = Workspace.at(recipe.workspace)
    trials = read_trials(place.search(recipe.run))
    runs = read_trainings(place / "runs", (place / "runs").names())
    if not trials and not runs:
        raise InputError(_nothing_there(place, recipe.run))
    entries = summarize(trials)
    tables = {
        "leaderboard": [asdict(e) | {"others": [f"{key}={value}" for key, value in e.others]} for e in entries],
        "trials": trials,
        "runs": [_run_row(r) for r in runs],
    }
    files = {f"{name}.csv": _csv(table) for name, table in tables.items() if table}
    files["recipe.yaml"] = dump(recipe)
    page = _page(recipe, place, trials, entries, runs, list(files))
    for name, content in files.items():
        (place / "report").write(name, content.encode())
    (place / "report").write("index.html", page.encode())
    return f"{place}/report/index.html" if place.is_local else f"{recipe.workspace.rstrip('/')}/report/index.html"


def leaderboard(recipe: Recipe) -> list[Entry]:
    """The methods of the recipe's search, the lowest test error first."""
    return summarize(read_trials(Workspace.at(recipe.workspace).search(recipe.run)))


def read_trials(search: Directory) -> list[Row]:
    """The rows of `trials.parquet`; empty if the search has not written it."""
    return pq.read_table(io.BytesIO(search.read("trials.parquet"))).to_pylist() if search.has("trials.parquet") else []


def read_trainings(place: Directory, names: Iterable[str]) -> list[Training]:
    """What the runs or trials `names` left in `place`, without those that never evaluated."""
    trainings = []
    for name in names:
        directory = place / name
        if (history := RunDirectory(directory).history()) and "val_accuracy" in history[0] and _has_accuracy(history):
            recipe = yaml.safe_load(directory.read("config.yaml"))
            trainings.append(Training(name, recipe, history, _read_gates(directory / "student")))
    return trainings


def _has_accuracy(history: Sequence[Mapping[str, Any]]) -> bool:
    """The page is about accuracy; a regression has none."""
    return history[0]["val_loss"] is None or history[0]["val_accuracy"] is not None


def _read_gates(student: Directory) -> dict[str, np.ndarray]:
    if not student.has("student.json"):
        return {}
    teachers = json.loads(student.read("student.json"))["teachers"]
    tensors = safetensors.numpy.load(student.read("regularizer.safetensors"))
    if "gate_logits" not in tensors:
        return {}
    gates = 1 / (1 + np.exp(-tensors["gate_logits"].astype(np.float64)))
    ends = np.cumsum([teacher["feature_dim"] for teacher in teachers])
    return dict(zip((teacher["name"] for teacher in teachers), np.split(gates, ends[:-1]), strict=True))


def _nothing_there(place: Workspace, run: str) -> str:
    searches = [name for name in (place / "searches").names() if place.search(name).has("trials.parquet")]
    hint = f" Searches there: {', '.join(searches)}; choose one with run=NAME." if searches else ""
    return f"{place} holds no run and no search '{run}'. Run 'aft-ray train' or 'aft-ray search' first.{hint}"


def _page(
    recipe: Recipe, place: Workspace, trials: list[Row], entries: list[Entry], runs: list[Training], files: list[str]
) -> str:
    search = place.search(recipe.run)
    finals = [Group(entry.title, read_trainings(search / "trials", entry.trials)) for entry in entries]
    finals = [group for group in finals if group.trainings]
    singles = [Group(run.name, [run]) for run in runs]
    gated = [group for group in finals or singles if all(training.gates for training in group.trainings)]
    splits = {split: manifest for split in SPLITS if (manifest := place.samples(split).manifest())}
    num_validation = splits.get("validation", {}).get("num_samples", math.nan)
    return _template().render(
        name=recipe.dataset.name or PurePosixPath(recipe.dataset.path or "").name,
        headline=headline(entries) if entries else runs_in_words(runs),
        classes=next((manifest["classes"] for manifest in splits.values()), []),
        entries=entries,
        runs=runs,
        trials=trials,
        errors=pictures.draw_errors(entries),
        betas=pictures.draw_betas(trials, num_validation),
        gains=pictures.draw_gains(trials),
        contributions=pictures.draw_contributions(trials),
        quality=pictures.draw_quality(trials, _probes(place)),
        gates=[pictures.describe_gates(f"gates-{number}", group) for number, group in enumerate(gated)],
        curves={
            title: pictures.draw_curves(name, groups)
            for title, name, groups in (("Chosen settings", "finals", finals), ("Single runs", "runs", singles))
            if groups
        },
        costs=_costs(trials, finals or singles),
        failures=Counter(row["error"] or "no reason recorded" for row in trials if row["status"] == "failed"),
        recipe=recipe,
        trained=next((group.trainings[0].recipe for group in finals + singles), recipe.model_dump(mode="json")),
        splits=splits,
        teachers=_teachers(place),
        has_winner=search.has("best.yaml"),
        seeds=sorted({row["seed"] for row in trials if row["stage"] == "final"}),
        files=files,
        recipe_text=dump(recipe),
        colours=COLOURS,
    )


def _costs(trials: Sequence[Row], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Trials by outcome and their wall time, per stage and method; speed from the trainings that were read."""
    speeds = {
        group.method: statistics.median(training.history[-1]["samples_per_s"] for training in group.trainings)
        for group in groups
    }
    costs = []
    for stage, method in dict.fromkeys((row["stage"], row["regularizer.name"]) for row in trials):
        own = [row for row in trials if (row["stage"], row["regularizer.name"]) == (stage, method)]
        outcomes = Counter(row["status"] for row in own)
        costs.append(
            {
                "stage": stage,
                "title": method_title(method),
                **{status: outcomes[status] for status in ("finished", "stopped", "failed")},
                "wall_time_s": sum(row["wall_time_s"] or 0.0 for row in own),
                "gpu_hours": sum((row["wall_time_s"] or 0.0) * row.get("num_gpus", 0.0) for row in own) / 3600,
                "samples_per_s": speeds.get(method, math.nan),
            }
        )
    return costs


def _teachers(place: Workspace) -> list[dict[str, Any]]:
    """What is known of every teacher whose features are complete.

    Weights are one hash, or one of each file; a class of the user's own may identify itself by something else.
    """
    manifests = {name: place.features(name, "train").manifest() for name in (place / "features").names()}
    rows = []
    for name, manifest in manifests.items():
        if manifest is None:
            continue
        made_by = manifest["fingerprint"]
        weights = made_by.get("weights", {})
        rows.append(
            {
                "name": name,
                "fingerprint_hash": fingerprint(made_by),
                "weights_hash": (weights if isinstance(weights, str) else fingerprint(weights))[:12],
                "input_size": (made_by.get("transform") or {}).get("size"),
                **manifest,
            }
        )
    return rows


def _probes(place: Workspace) -> dict[tuple[str, ...], float]:
    """Validation accuracy of a linear probe on each combination of teachers that `rank` has seen."""
    rows = json.loads(place.read("rank.json"))["rows"] if place.has("rank.json") else []
    return {tuple(row["teachers"]): row["val_accuracy"] for row in rows}


def _run_row(run: Training) -> Row:
    return {
        "run": run.name,
        "method": run.method,
        "beta": run.recipe["regularizer"]["beta"],
        "teachers": [teacher["name"] for teacher in run.recipe["teachers"]],
        "seed": run.recipe["train"]["seed"],
        "step": run.best["step"],
        "val_accuracy": run.best["val_accuracy"],
        "test_accuracy": run.test_accuracy,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Full precision; lists joined by '+'; what is not known is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(_cell(value) for value in row.values())
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return "+".join(value)
    return "" if value is None or value != value else value


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aft_ray.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,  # Markup stays Markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "hash": fingerprint,
        "svg": Markup,
        "duration": _duration,
    }
    environment.globals["method_title"] = method_title
    return environment.get_template("report.html.j2")


def _percent(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    units = ((3600, "h"), (60, "min"))
    return next((f"{seconds / size:.1f} {unit}" for size, unit in units if seconds >= 2 * size), f"{seconds:.1f} s")
