"""The page: which numbers, pictures and tables of a workspace go into the template."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import jinja2
from markupsafe import Markup

from aft_ray.recipe.config import Recipe, dump, fingerprint
from aft_ray.recipe.printable import printable
from aft_ray.report import pictures
from aft_ray.report.closeness import Closeness
from aft_ray.report.plots import COLOURS
from aft_ray.report.reading import Findings, read_probes, read_trainings
from aft_ray.report.results import Group, Training, TrialRow, method_title
from aft_ray.report.words import runs_in_words
from aft_ray.store.manifest import num_labelled
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import ACCURACY, Measure


def render_page(
    recipe: Recipe,
    trials: list[TrialRow],
    found: Findings,
    runs: list[Training],
    near: list[Closeness],
    measure: Measure,
    files: list[str],
) -> str:
    """The page as HTML. measure: of the workspace's task. files: beside the page, to link to."""
    place, entries = Workspace.at(recipe.workspace), found.entries
    search = place.search(recipe.run)
    finals = [Group(entry.title, read_trainings(search / "trials", entry.trials)) for entry in found.chosen]
    finals = [group for group in finals if group.trainings]
    singles = [Group(run.name, [run]) for run in runs]
    gated = [group for group in finals or singles if all(training.gates for training in group.trainings)]
    splits = {split: manifest for split in SPLITS if (manifest := place.samples(split).manifest())}
    num_validation = num_labelled(splits["validation"]) if "validation" in splits else math.nan
    return template("report.html.j2").render(
        name=recipe.dataset.name or PurePosixPath(recipe.dataset.path or "").name,
        headline=found.headline if entries else runs_in_words(runs, measure),
        remarks=found.remarks,
        measure=measure,
        is_accuracy=measure is ACCURACY,
        classes=next((manifest["classes"] for manifest in splits.values()), []),
        entries=entries,
        heads=[(head, found.relative_error(head)) for head in found.heads],
        runs=runs,
        trials=trials,
        errors=pictures.draw_errors(found.chosen),
        betas=pictures.draw_betas(trials, num_validation),
        gains=pictures.draw_gains(trials),
        contributions=pictures.draw_contributions(trials),
        quality=pictures.draw_quality(trials, read_probes(place)),
        gates=[pictures.describe_gates(f"gates-{number}", group) for number, group in enumerate(gated)],
        near=near,
        curves={
            title: pictures.draw_curves(name, groups, measure)
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


def _costs(trials: Sequence[TrialRow], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Per stage and method: the number of trials by outcome, their wall time, and the speed of the given trainings."""
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
    """A row for every teacher whose features are complete.

    Weights have one hash, or one for each file; a class of the user's own may identify itself by something else.
    """
    manifests = {name: place.features(name, "train").own_manifest() for name in (place / "features").folders()}
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
                "made_with": {},  # in manifests of this version
                **manifest,
            }
        )
    return rows


def template(name: str, package: str = "aft_ray.report") -> jinja2.Template:
    """A page's template: a file of `package`, which may build on the files of this one."""
    packages = dict.fromkeys((package, "aft_ray.report"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "") for package in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,  # Markup stays Markup
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "value": lambda value, measure: measure.number(value),
        "hash": fingerprint,
        "svg": Markup,
        "duration": _duration,
    }
    environment.globals["method_title"] = method_title
    return environment.get_template(name)


def _percent(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    units = ((3600, "h"), (60, "min"))
    return next((f"{seconds / size:.1f} {unit}" for size, unit in units if seconds >= 2 * size), f"{seconds:.1f} s")
