"""How the command line shows results: tables, sizes and times.

What a table is of is imported by the function that shows it, so that `--help` need not wait for torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aft_ray.recipe.config import Recipe

if TYPE_CHECKING:
    from aft_ray.extraction.estimate import Estimate
    from aft_ray.search.estimate import SearchPlan
    from aft_ray.search.rank import Ranking

console = Console(width=None if sys.stdout.isatty() else 120)  # a log has no width of its own
LISTED_CLASSES = 20


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    console.print(title, style="bold", soft_wrap=True)
    table = Table()
    texts = [[str(cell) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        short = max((len(row[number]) for row in texts), default=0) <= 18
        table.add_column(column, overflow="fold", no_wrap=short)
    for text in texts:
        table.add_row(*map(Text, text))  # a name may look like rich's markup
    console.print(table)


def show_samples(recipe: Recipe, manifests: Mapping[str, dict[str, Any]]) -> None:
    """Samples per class and split."""
    names = [*manifests]
    per_class = {split: manifest["samples_per_class"] for split, manifest in manifests.items()}
    classes = manifests["train"]["classes"]
    rows = [[name, *(per_class[split][name] for split in names)] for name in classes[:LISTED_CLASSES]]
    if len(classes) > LISTED_CLASSES:
        rows.append([f"... {len(classes) - LISTED_CLASSES} more", *("" for _ in names)])
    if any(manifest["num_unlabelled"] for manifest in manifests.values()):
        rows.append(["without a label", *(manifests[split]["num_unlabelled"] for split in names)])
    rows.append(["samples", *(manifests[split]["num_samples"] for split in names)])
    rows.append(["put aside", *(len(manifests[split]["quarantined"]) for split in names)])
    rows.append(["shards", *(len(manifests[split]["shards"]) for split in names)])
    print_table(f"Samples in {recipe.workspace}", ["class", *names], rows)


def show_estimate(recipe: Recipe, found: Estimate) -> None:
    """What an extraction would cost."""
    rows = [
        [
            teacher.name,
            teacher.feature_dim,
            teacher.samples,
            "?" if teacher.shards_missing is None else teacher.shards_missing,
            size(teacher.feature_bytes),
            f"{teacher.samples_per_s:.1f}",
            f"{teacher.load_s:.1f} s",
            duration(teacher.hours),
            f"{teacher.gpu_hours:.2f}",
        ]
        for teacher in found.teachers
    ]
    columns = ["teacher", "width", "to do", "shards", "in all", "samples/s", "loads in", "takes", "GPU-h"]
    print_table(f"Extraction for {recipe.workspace}: samples/s are one actor's", columns, rows)
    total = sum(found.samples.values())
    decoded = sum(teacher.crop_bytes for teacher in found.teachers) * total
    counts = ", ".join(f"{count} {split}" for split, count in found.samples.items())
    console.print(f"samples   {counts}; {size(found.content_bytes)} encoded, {size(decoded)} decoded in passing")
    console.print(
        f"decoding  {1000 * found.decode_s:.2f} ms of a CPU per sample, {duration(found.decode_hours)} in all"
    )
    slowest = max(found.teachers, key=lambda teacher: teacher.hours)
    limit = slowest.name if slowest.hours >= found.decode_hours else "decoding; more CPUs would help"
    console.print(f"takes     {duration(found.hours)}, limited by {limit}")
    if found.idle_gpus >= 1:
        console.print(
            f"GPUs      {found.idle_gpus:g} of the cluster would be idle: see teachers[].num_gpus and num_actors"
        )
    if found.free_bytes is not None:
        needed = sum(teacher.feature_bytes for teacher in found.teachers)
        verdict = "" if found.free_bytes > needed else "  NOT ENOUGH"
        console.print(f"disk      {size(needed)} of features, {size(found.free_bytes)} free{verdict}")


def show_ranking(recipe: Recipe, ranking: Ranking) -> None:
    """Combinations of teachers, and how alike the teachers are."""
    from aft_ray.store.workspace import Workspace

    rows = [
        [
            ", ".join(row["teachers"]),
            f"{row['log_me']:.4f}",
            f"{100 * row['val_accuracy']:.2f}",
            f"{100 * row['knn_accuracy']:.2f}",
        ]
        for row in ranking.rows
    ]
    print_table(
        "Teachers by validation % of a linear head; of neighbours, and LogME",
        ["teachers", "LogME", "linear", "k-NN"],
        rows,
    )
    if len(ranking.names) > 1:
        alike = [
            [name, *(f"{value:.2f}" for value in row)] for name, row in zip(ranking.names, ranking.cka, strict=True)
        ]
        print_table("Alike (linear CKA): 1 says the same", ["teacher", *ranking.names], alike)
    console.print(f"picture: {Workspace.at(recipe.workspace) / 'rank.png'}", soft_wrap=True)


def show_scores(recipe: Recipe, result: Mapping[str, Any]) -> None:
    """Of a run on one split."""
    from aft_ray.export.card import SCORES

    rows = [[text, f"{result[key]:.4f}"] for key, text in SCORES.items() if result.get(key) is not None]
    title = f"Run '{recipe.run}' on {result['num_samples']} samples of split {result['split']}"
    print_table(title, ["score", "value"], rows)
    _show_classes(result["per_class"])
    split, place = result["split"], f"{recipe.workspace}/runs/{recipe.run}"
    console.print(f"all scores and the confusion matrix: {place}/evaluation-{split}.json", soft_wrap=True)
    console.print(f"every sample: {place}/predictions-{split}.parquet", soft_wrap=True)


def _show_classes(classes: Sequence[dict[str, Any]]) -> None:
    """All classes in their order, or of many those that fare worst."""
    title, shown = "Class by class", list(classes)
    if len(classes) > LISTED_CLASSES:
        by = "f1" if "f1" in classes[0] else "r2"
        shown = sorted(classes, key=lambda row: math.inf if row[by] is None else row[by])[:LISTED_CLASSES]
        title = (
            f"The {LISTED_CLASSES} classes with the lowest {by}; {len(classes) - LISTED_CLASSES} more are left out here"
        )
    columns = list(classes[0])
    rows = [["-" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in row.values()] for row in shown]
    print_table(title, [column.replace("_", " ") for column in columns], rows)


def show_predictions(path: str, summary: Mapping[str, Any]) -> None:
    """How often each class was predicted for what lies at `path`."""
    counts = sorted(summary["counts"].items(), key=lambda item: -item[1])
    rows: list[list[Any]] = [[name, count] for name, count in counts[:LISTED_CLASSES]]
    if len(counts) > LISTED_CLASSES:
        rows.append([f"... {len(counts) - LISTED_CLASSES} more", sum(count for _, count in counts[LISTED_CLASSES:])])
    rows.append(["cannot be read", summary["num_errors"]])
    print_table(f"{summary['num_samples']} samples of {path}", ["predicted", "samples"], rows)
    console.print(f"predictions: {summary['output']}", soft_wrap=True)


def show_search_plan(recipe: Recipe, plan: SearchPlan) -> None:
    """The trials of a search, and what they would take."""
    settings = dict.fromkeys(trial.setting for trial in plan.trials)
    rows = [
        [
            setting.method,
            f"{setting.beta:g}" if setting.teachers else "-",
            ", ".join(setting.teachers) or "-",
            ", ".join(f"{key}={value}" for key, value in setting.others) or "-",
        ]
        for setting in settings
    ]
    print_table(f"Settings of search '{recipe.run}'", ["method", "beta", "teachers", "other keys"], rows)
    if recipe.search.searcher == "optuna":
        console.print("optuna will choose others as it learns; these are as many random draws", soft_wrap=True)
    methods = ", ".join(f"{count} {method}" for method, count in plan.per_method().items())
    console.print(f"trials    {len(plan.trials)} ({methods}), then {plan.num_final} final runs")
    console.print(f"a step    {1000 * plan.step_s:.1f} ms, an evaluation {plan.evaluation_s:.2f} s, on this machine")
    console.print(f"takes     {duration(plan.hours)} of one worker if no trial is stopped early")


def show_leaderboard(recipe: Recipe) -> None:
    """Each method at its best setting."""
    from aft_ray.report.report import leaderboard

    entries = leaderboard(recipe)
    has_others = any(entry.others for entry in entries)
    rows = [
        [
            entry.title,
            f"{entry.beta:g}" if entry.teachers else "-",
            ", ".join(entry.teachers) or "-",
            *([", ".join(f"{key}={value}" for key, value in entry.others)] if has_others else []),
            entry.num_seeds,
            f"{100 * entry.val_accuracy:.2f}",
            _number(100 * entry.test_accuracy, ".2f")
            + _number(100 * entry.test_accuracy_se, ".2f", before=" ± ", no=""),
            _number(100 * entry.gain, "+.2f") + _number(entry.p_value, ".3f", before="  p ", no=""),
        ]
        for entry in entries
    ]
    others = ["other keys"] if has_others else []
    columns = ["method", "beta", "teachers", *others, "seeds", "validation %", "test %", "paired gain"]
    print_table("Methods compared: accuracy, mean ± standard error over seeds", columns, rows)


def _number(value: float, form: str, *, before: str = "", no: str = "-") -> str:
    """no: what stands for a number that one seed, or none, cannot give."""
    return no if math.isnan(value) else f"{before}{value:{form}}"


def show_list(kind: str) -> None:
    """Everything of a kind that a recipe can name."""
    if kind == "datasets":
        from aft_ray.datasets import NAMED, SOURCES
        from aft_ray.recipe.sections import DatasetConfig

        rows: list[list[Any]] = []
        for name, found in NAMED.items():
            here = "no" if found.missing(DatasetConfig(name=name)) else "yes"
            sizes = " + ".join(f"{count:,}" for count in found.num_samples)
            rows.append([name, found.modality, found.num_classes, sizes, found.licence, here, found.origin])
        columns = ["name", "modality", "classes", "samples", "licence", "here", "from"]
        print_table("Named data sets: samples are train + test", columns, rows)
        console.print("not here: 'aft-ray prepare' says what to download and where to put it", soft_wrap=True)
        console.print(f"your own: dataset.source is one of {', '.join(SOURCES)}", soft_wrap=True)
    elif kind == "regularizers":
        from aft_ray.regularizers import REGULARIZERS

        rows = [[name, (kind.__doc__ or "").splitlines()[0]] for name, kind in REGULARIZERS.items()]
        print_table("Regularizers", ["name", "what it does"], rows)
    elif kind == "students":
        from aft_ray.models.students import KINDS

        rows = [[kind.form, kind.modality, kind.summary] for kind in KINDS.values()]
        print_table("Students", ["model", "reads", "what it is"], rows)
    else:
        from aft_ray.models.teachers import FORMS

        print_table("Teachers", ["model", "reads", "what it is"], FORMS)


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def duration(hours: float) -> str:
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:.1f} h"
