"""The report on small real workspaces: numbers, partial data, and a page that needs nothing but itself."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from aft_ray.recipe.config import Recipe, dump, fingerprint, override
from aft_ray.recipe.errors import InputError
from aft_ray.report.pictures import draw_betas, draw_contributions, draw_quality
from aft_ray.report.plots import INK, Line, draw_lines, spread
from aft_ray.report.reading import findings
from aft_ray.report.report import report
from aft_ray.report.results import METHODS, summarize

TEACHERS = {"small": 6, "large": 10}
PROBES = {("small",): 0.5, ("large",): 0.7, ("small", "large"): 0.8}
TEST_ACCURACY = {"none": [0.84, 0.85, 0.83], "kd": [0.86, 0.87, 0.88], "aft": [0.90, 0.91, 0.92]}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return recipe_at(tmp_path)


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


class Page(HTMLParser):
    """Tags that are open, every attribute seen, the text of tables' cells."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, place: str) -> None:
        super().__init__()
        self.source = Path(place).read_text()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " " + data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def test_leaderboard_has_means_and_standard_errors_of_the_final_runs(recipe: Recipe) -> None:
    write_search(recipe, searched() + finals())
    first, second, third = findings(recipe).entries
    assert [first.method, second.method, third.method] == ["aft", "kd", "none"]
    assert (first.beta, first.teachers, first.num_seeds) == (10.0, ("small", "large"), 3)
    assert first.test == pytest.approx(0.91)
    assert first.test_se == pytest.approx(0.01 / math.sqrt(3))  # deviations -0.01, 0, 0.01
    assert first.relative_error == pytest.approx(0.09 / 0.16)
    assert first.relative_error_se == pytest.approx(math.sqrt(0.0003) / math.sqrt(3) / 0.16)  # gains 0.06, 0.06, 0.09
    assert third.relative_error == pytest.approx(1)


def test_page_and_csv_show_the_same_numbers(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert "AFT 91.00 ± 0.58 0.56 ± 0.06 7.00 (p 0.020) 86.00 3 10 small + large" in page.words
    assert "other keys" not in page.words
    assert "alone AFT small 3 7 30 76.67 80.00 100" in page.words
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        best = next(csv.DictReader(file))
    assert (best["method"], best["teachers"]) == ("aft", "small+large")
    assert float(best["test_accuracy"]) == pytest.approx(0.91)
    with Path(recipe.workspace, "report", "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(searched() + finals())


def test_other_searched_keys_are_on_the_page_and_in_the_csv(recipe: Recipe) -> None:
    write_search(recipe, [row | {"train.learning_rate": 0.003, "student.model": "tiny:cnn"} for row in searched()])
    assert "small + large student.model tiny:cnn, train.learning_rate 0.003" in Page(report(recipe)).words
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        assert next(csv.DictReader(file))["others"] == "student.model=tiny:cnn+train.learning_rate=0.003"


def test_page_tells_outcomes_reasons_gates_and_lineage(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert "AFT search 5 1 1 12.0 s" in page.words
    assert "<img src=x> out of memory" in page.words
    gates = 1 / (1 + np.exp(-np.linspace(-1, 1, 16)))
    assert (
        f"small 6 {gates[:6].mean():.3f} {gates[:6].std():.3f} {100 * gates[:6].sum() / gates.sum():.1f} 37.5"
        in page.words
    )
    assert "small timm:small 0123456789ab" in page.words
    assert "torch 2.9.0, timm 1.0.20" in page.words
    assert "10 labels per class" in page.words


def test_teachers_of_texts_and_of_one_s_own_are_described(recipe: Recipe) -> None:
    write_everything(recipe)
    files = {"config.json": "ab" * 32, "model.safetensors": "cd" * 32}
    described: dict[str, dict[str, Any]] = {
        "text": {"weights": files, "transform": None},
        "own": {"seed": 3, "transform": None},
    }
    for name, made_by in described.items():
        manifest = {
            "feature_dim": 384,
            "fingerprint": {"model": f"m:{name}", **made_by},
            "made_with": {"torch": "2.9.0"},
        }
        write_manifest(Path(recipe.workspace, "features", name, "train"), manifest)
    words = Page(report(recipe)).words
    assert f"text m:text {fingerprint(files)[:12]}" in words and "own m:own" in words and "torch 2.9.0 – 384" in words


def test_report_is_deterministic(recipe: Recipe) -> None:
    write_everything(recipe)
    assert Page(report(recipe)).source == Page(report(recipe)).source


def test_page_needs_nothing_but_itself(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert not page.open
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.seen}
    assert not re.search(r"@import|url\((?!#)", page.source)
    targets = [a[k] for _, a in page.seen for k in ("src", "href", "xlink:href") if k in a]
    beside = {path.name for path in Path(recipe.workspace, "report").iterdir()}
    assert all(target and (target[0] == "#" or target in beside) for target in targets)


def test_pictures_have_size_name_and_ids_of_their_own(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    pictures = page.attributes("svg")
    # errors; betas, gains, contributions and quality of two methods; gates; curves of finals and of the run
    assert len(pictures) == 1 + 4 * 2 + 2 + 4
    for picture in pictures:
        width, height = float(picture["width"] or 0), float(picture["height"] or 0)
        assert 0 < width <= 360 and height > 0
        assert picture["viewbox"] == f"0 0 {width:g} {height:g}"
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    labels = " ".join(picture["aria-labelledby"] or "" for picture in pictures).split()
    assert set(labels) <= set(ids)
    used = {(a["xlink:href"] or "")[1:] for a in page.attributes("use")}
    assert used <= set(ids)
    assert INK not in page.source


@pytest.mark.parametrize(
    "parts, expected",
    [
        (["run"], "Run alone (AFT): 76.7 % validation accuracy, 20.0 % test error."),
        (["search"], "AFT (beta 10, small + large) has the best validation accuracy of the search, 86.0 %. Final runs"),
        (["finals"], "AFT: 9.0 % test error against 16.0 % of standard transfer"),
        (["search", "run"], "Final runs, the only ones that see the test split, are missing."),
        (["finals", "run"], "AFT: 9.0 % test error against 16.0 % of standard transfer"),
    ],
)
def test_report_works_on_partial_workspaces(recipe: Recipe, parts: list[str], expected: str) -> None:
    rows = (searched() if "search" in parts else []) + (finals() if "finals" in parts else [])
    if rows:
        write_search(recipe, rows)
    if "run" in parts:
        run = trial("final", "aft", 3.0, ("small",), test_accuracy=0.8)
        write_training(Path(recipe.workspace, "runs", "alone"), recipe, run)
    page = Page(report(recipe))
    assert not page.open
    assert expected in page.words
    assert "nan" not in page.words


def test_without_standard_transfer_errors_are_absolute(recipe: Recipe) -> None:
    rows = [row for row in searched() + finals() if row["regularizer.name"] != "none"]
    write_search(recipe, rows)
    page = Page(report(recipe))
    assert "AFT: 9.0 % test error against 13.0 % of KD" in page.words
    assert "AFT 91.00 ± 0.58 – – 86.00 3 10 small + large" in page.words
    assert "test error, %" in page.words and "nan" not in page.words


def as_regression(row: dict[str, Any]) -> dict[str, Any]:
    """The same trial measured by its loss: the rate of its errors."""
    found = row | {
        f"{split}_loss": row[f"{split}_accuracy"] and 1 - row[f"{split}_accuracy"] for split in ("val", "test")
    }
    return found | {"val_accuracy": None, "test_accuracy": None}


def test_a_regression_has_a_leaderboard_pictures_and_runs_of_its_losses(recipe: Recipe) -> None:
    write_samples(recipe.workspace, ["stars"])
    rows = [as_regression(row) for row in searched() + finals()]
    write_search(recipe, rows)
    run = as_regression(trial("final", "aft", 3.0, ("small",), seed=7, test_accuracy=0.8))
    write_training(Path(recipe.workspace, "runs", "alone"), recipe, run)
    page = Page(report(recipe))
    assert (
        "AFT: 0.09 test loss against 0.16 of standard transfer (3 seeds). The difference of 0.07, paired" in page.words
    )
    assert "test loss relative loss gain validation seeds" in page.words
    assert "AFT 0.09 ± 0.005774 0.56 ± 0.06 0.07 (p 0.020) 0.14 3 10 small + large" in page.words
    assert "alone AFT small 3 7 30 0.2333 0.2 100" in page.words
    assert "accuracy" not in page.words and "nan" not in page.words and not page.open
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        best = next(csv.DictReader(file))
    assert float(best["test_loss"]) == pytest.approx(0.09) and float(best["val_loss"]) == pytest.approx(0.14)
    with Path(recipe.workspace, "report", "runs.csv").open() as file:
        assert float(next(csv.DictReader(file))["test_loss"]) == pytest.approx(0.2)


def test_a_stopped_trial_with_a_large_loss_is_drawn_at_the_edge() -> None:
    rows = [as_regression(row) for row in searched()]
    rows[1] |= {"val_loss": 100.0}
    aft, _ = draw_betas(rows, 100)
    heights = [float(y) for y in re.findall(r">(\d+\.\d+)</text>", aft)]
    assert "AFT: validation loss" in aft and heights and max(heights) < 1


def test_every_trial_failed_is_a_report_too(recipe: Recipe) -> None:
    write_search(recipe, [row for row in searched() if row["status"] == "failed"])
    assert "No trial has a score" in Page(report(recipe)).words


def test_an_unfinished_run_is_shown(recipe: Recipe) -> None:
    directory = Path(recipe.workspace, "runs", "going")
    write_training(directory, recipe, trial("final", "aft", 3.0, ("small",), test_accuracy=0.8))
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    (directory / "metrics.jsonl").write_text(lines[0] + "\n")
    for file in (directory / "student").iterdir():
        file.unlink()
    assert "it has not reached the test split" in Page(report(recipe)).words


def test_an_empty_workspace_is_refused(recipe: Recipe) -> None:
    with pytest.raises(
        InputError, match="holds no run and no search 'main'. Run 'aft-ray train' or 'aft-ray search' first.$"
    ):
        report(recipe)
    assert not Path(recipe.workspace, "report").exists()


def test_a_file_in_the_place_of_searches_is_told(recipe: Recipe) -> None:
    write_everything(recipe)
    shutil.rmtree(Path(recipe.workspace) / "searches")
    (Path(recipe.workspace) / "searches").write_text("not a directory")
    with pytest.raises(InputError, match="searches cannot be read: Not a directory. Move it away"):
        report(recipe)


def test_the_search_of_another_name_is_offered(recipe: Recipe) -> None:
    write_search(override(recipe, {"run": "other"}), searched())
    with pytest.raises(InputError, match="Searches there: other; choose one with run=NAME"):
        report(recipe)


def test_hostile_names_are_escaped(recipe: Recipe) -> None:
    write_samples(recipe.workspace, ["<script>alert(1)</script>", "&amp;", "\x1b[8mhidden"])
    hostile = {"regularizer.name": "<script>", "teachers": ["$x_1$ <b>"]}
    write_search(recipe, [row | hostile for row in searched()])
    page = Page(report(recipe))
    assert "<script>alert(1)</script>, &amp;, \\x1b[8mhidden" in page.words and "\x1b" not in page.source
    assert "$x_1$ <b>" in page.words
    assert not page.attributes("script") and not page.attributes("b")


def test_every_regularizer_has_words_and_a_colour() -> None:
    from aft_ray.regularizers import REGULARIZERS
    from aft_ray.report.plots import COLOURS

    assert set(METHODS) == set(COLOURS) == set(REGULARIZERS)
    assert len({light for light, _ in COLOURS.values()}) == len(COLOURS)


def test_spread_keeps_labels_apart_and_leaves_free_ones_alone() -> None:
    assert spread([0.0, 0.5, 1.0], 0.1) == pytest.approx([0.0, 0.5, 1.0])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    places = spread([0.0, 0.05, 0.11, 0.9], 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(places))


def test_beta_of_zero_has_a_place_on_the_logarithmic_axis() -> None:
    rows = [trial("search", "aft", beta, ("small",)) for beta in (0.0, 1.0, 10.0)]
    (picture,) = draw_betas(rows, 100)
    assert re.findall(r">(0|1|10)</text>", picture)[:3] == ["0", "1", "10"]


def test_what_a_teacher_adds_is_a_mean_over_the_combinations_with_and_without_it() -> None:
    """Best of AFT: small 0.80, large 0.83, both 0.86; standard transfer 0.80."""
    picture = next(picture for picture in draw_contributions(searched()) if "AFT" in picture)
    assert "large +4.5; small +1.5" in picture  # (3 + 6) / 2 and (0 + 3) / 2 points
    alone = [row for row in searched() if len(row["teachers"]) < 2 and row["regularizer.name"] != "none"]
    assert draw_contributions(alone) == []


def test_probes_and_students_are_correlated_over_four_combinations_or_more() -> None:
    aft, _ = draw_quality(searched(), PROBES)
    students = [80.0, 83.0, 86.0]
    assert "3 combinations of teachers: too few for a correlation." in aft and "r =" not in aft
    assert draw_quality(searched(), {("small",): 0.5}) == []
    more = [*searched(), trial("search", "aft", 1.0, ("third",), val_accuracy=0.75)]
    expected = np.corrcoef([50.0, 70.0, 80.0, 60.0], [*students, 75.0])[0, 1]
    assert f"4 combinations of teachers: r = {expected:.2f}." in draw_quality(more, PROBES | {("third",): 0.6})[0]


def test_a_drawing_depends_on_its_data_alone() -> None:
    def draw(name: str) -> str:
        return draw_lines(name, "heading", [Line("a", "aft", [1, 2], [3, 4])], x_label="step", description="rising")

    assert draw("one") == draw("one")
    assert not set(re.findall(r'id="([^"]*)"', draw("one"))) & set(re.findall(r'id="([^"]*)"', draw("two")))


def test_gains_are_paired_by_seed() -> None:
    rows = finals()
    for row in rows:  # seeds differ much, the gain of a seed does not
        row["test_accuracy"] = 0.7 + 0.05 * row["seed"] + {"none": 0.0, "kd": 0.0, "aft": 0.02}[row["regularizer.name"]]
    rows[-1]["test_accuracy"] += 0.001
    entries = {entry.method: entry for entry in summarize(rows)}
    assert entries["aft"].gain == pytest.approx(0.02 + 0.001 / 3) and entries["aft"].p_value < 0.001
    assert (entries["kd"].gain, entries["kd"].p_value) == (pytest.approx(0.0), 1.0)
    assert math.isnan(entries["none"].gain) and entries["aft"].test_se > 0.02


def test_a_setting_has_all_searched_keys_and_is_chosen_by_its_mean_over_seeds() -> None:
    rows = [
        trial("search", "aft", 1.0, ("small",), seed, val_accuracy=accuracy, **{"train.learning_rate": rate})
        for rate, accuracies in ((0.1, (0.9, 0.5)), (0.2, (0.8, 0.8)))
        for seed, accuracy in enumerate(accuracies)
    ]
    (entry,) = summarize(rows)
    assert entry.others == (("train.learning_rate", 0.2),) and entry.validation == pytest.approx(0.8)
    assert entry.setting == "beta 1, small, train.learning_rate 0.2"
