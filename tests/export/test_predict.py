"""Predictions for files and texts through a Ray cluster, and what is listed for them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from aft_ray.cli import main
from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.datasets.unlabelled import DecodeRows, list_unseen
from aft_ray.export.predict import open_prediction, predict
from aft_ray.export.prediction_files import Staged, staged
from aft_ray.export.scores import probabilities
from aft_ray.export.student import Classifier, load_student
from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from tests.helpers.deadly import Crop
from tests.helpers.small_students import TEACHER_DIMS, small_config, small_student

CLASSES = ["cat", "dog", "fish"]


def finished(
    kind: str, tmp_path: Path, task: str = "classification", dataset: dict[str, Any] | None = None
) -> tuple[Recipe, Classifier]:
    """A run with a student of random weights. dataset: what it was trained on."""
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"name": "mnist5k"},
            "student": small_config(kind, tmp_path / kind).model_dump(),
            "train": {"num_workers": 2},
        }
    )
    facts = {
        "student": recipe.student.model_dump(mode="json"),
        "task": task,
        "classes": CLASSES,
        "teachers": [
            {"name": f"t{k}", "model": f"timm:t{k}", "feature_dim": width} for k, width in enumerate(TEACHER_DIMS)
        ],
        "dataset": dataset or {"name": "mnist5k"},
    }
    weights = small_student(kind, tmp_path / kind, 3).state_dict()
    run = Workspace.at(recipe.workspace).run("main")
    save_student(run / "student", {f"student.{name}": tensor for name, tensor in weights.items()}, facts)
    return recipe, load_student(run)


def pictures(folder: Path, count: int) -> None:
    (folder / "deep").mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 30 * number + 9, (40, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / ("deep" if number % 3 == 0 else ".") / f"{number}.png")


def read(place: str) -> list[dict[str, Any]]:
    """The rows of all shards in their order."""
    return [row for path in sorted(Path(place).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.ray
def test_a_folder_of_images_with_a_broken_one(tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, student = finished("tiny:cnn", tmp_path)
    folder = tmp_path / "photos"
    pictures(folder, 7)
    (folder / "3-broken.png").write_bytes((folder / "2.png").read_bytes()[:90])
    (folder / "notes.txt").write_text("no picture")
    place = tmp_path / "work" / "predictions" / "main"
    with staged(Workspace.at(recipe.workspace), Workspace.at(place)) as earlier:
        hashes = {number: earlier.write(number, pa.table({"sample_id": ["of an earlier call"]})) for number in range(5)}
        earlier.publish(hashes, {})
    summary = predict(recipe, str(folder), all_probabilities=True, part_size=3)
    rows = read(summary["output"])
    ids = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert [row["sample_id"] for row in rows] == ids and summary["files"] == sorted(
        path.name for path in place.glob("*.parquet")
    )
    assert (summary["num_samples"], summary["num_errors"]) == (8, 1)
    assert (
        len(summary["files"]) == 3 and json.loads((place / "predictions.json").read_text()).items() >= summary.items()
    )
    broken = rows.pop(ids.index("3-broken.png"))
    assert (
        broken["predicted"] is broken["probability"] is broken["probabilities"] is None
        and "truncated" in broken["error"]
    )
    (transform,) = student.transforms
    images = np.stack([transform((folder / row["sample_id"]).read_bytes()) for row in rows])
    with torch.no_grad():
        expected = probabilities("classification", student(torch.from_numpy(images)).numpy())
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected, rtol=1e-5)
    assert [row["predicted"] for row in rows] == [CLASSES[k] for k in expected.argmax(1)]
    np.testing.assert_allclose([row["probability"] for row in rows], expected.max(1), rtol=1e-5)
    assert sum(summary["counts"].values()) == 7 and all(row["error"] is None for row in rows)

    # This process makes the same files, of all parts, or of the first where it has no time for more.
    opened = open_prediction(recipe, str(folder), output=str(tmp_path / "here"))
    for starts, here_s in ((no_cluster, 60.0), (nullcontext, 1e-9)):
        here = opened.make(starts, here_s=here_s, all_probabilities=True, part_size=3)
        assert list(here["sha256"].values()) == list(summary["sha256"].values())
        assert here["counts"] == summary["counts"] and here["num_errors"] == 1

    # One more ends the process that decodes it, each time; the others are as before.
    def with_a_deadly_picture(run: Directory) -> Classifier:
        found = load_student(run)
        found.transforms = (Crop(**vars(transform), deadly=images[-1].tobytes().hex()),)
        return found

    monkeypatch.setattr("aft_ray.export.predict.load_student", with_a_deadly_picture)
    again = read(
        predict(recipe, str(folder), all_probabilities=True, part_size=3, output=str(tmp_path / "2"))["output"]
    )
    assert again[:2] == rows[:2]
    said = {row["sample_id"]: (row["predicted"], row["error"]) for row in again}
    assert said.pop(rows[-1]["sample_id"]) == (None, "it crashes the process of decoding")
    assert said == {row["sample_id"]: (row["predicted"], row["error"]) for row in (*rows[:-1], broken)}


@pytest.mark.ray
def test_texts_and_several_labels(tmp_path: Path, cluster: None) -> None:
    """Each row becomes the text that the student was trained on: of the recipe's columns, put into its prompt."""
    columns = {"text": ["from", "body"], "id": "nr"}
    dataset = {"source": "jsonl", "path": "all.jsonl", "columns": columns, "prompt": "Mail of {from}: {body}"}
    recipe, student = finished("tiny:text", tmp_path, "multilabel", dataset=dataset)
    file = tmp_path / "mails.jsonl"
    texts = ["one two", "three", 7, "four five six"]
    mails = [{"nr": f"m{k}", "from": "Ann", "body": text, "text": "not this"} for k, text in enumerate(texts)]
    file.write_text("".join(json.dumps(mail) + "\n" for mail in mails))
    rows = read(predict(recipe, str(file), output=str(tmp_path / "out"))["output"])
    assert [row["sample_id"] for row in rows] == ["m0", "m1", "m2", "m3"]
    assert rows[2]["predicted"] is None and rows[2]["error"] == "column body holds 7, which is of type int, not a text"
    (transform,) = student.transforms
    with torch.no_grad():
        logits = student(torch.from_numpy(np.stack([transform("Mail of Ann: three")])))[0]  # type: ignore[arg-type]
    assert rows[1]["predicted"] == [name for name, value in zip(CLASSES, logits, strict=True) if value > 0]
    chances = probabilities("multilabel", logits[None].numpy())[0]
    np.testing.assert_allclose(rows[1]["probability"], chances[chances > 0.5], rtol=1e-5)
    assert [*rows[1]] == ["sample_id", "predicted", "probability", "error"]


def no_cluster(*given: Any) -> Any:
    pytest.fail("a cluster was started")


def test_a_small_input_needs_no_cluster_unless_one_is_named_or_a_process_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, student = finished("tiny:cnn", tmp_path)
    pictures(tmp_path / "photos", 4)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    command = ["predict", str(tmp_path / "recipe.yaml"), str(tmp_path / "photos")]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("aft_ray.commands.predict.ray_cluster", no_cluster)
    assert main(command) == 0
    place = tmp_path / "work" / "predictions" / "main"
    rows = read(str(place))
    (transform,) = student.transforms
    inputs = np.stack([transform((tmp_path / "photos" / row["sample_id"]).read_bytes()) for row in rows])
    with torch.no_grad():
        expected = student(torch.from_numpy(inputs)).argmax(1)
    assert [row["predicted"] for row in rows] == [CLASSES[k] for k in expected] and len(rows) == 4
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []
    pictures(tmp_path / "others", 2)
    capsys.readouterr()
    assert main([*command[:-1], str(tmp_path / "others")]) == main(command) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "replaced" in line]
    assert [
        f"{tmp_path}/{name} in {place} are replaced; --output" in line
        for name, line in zip(("photos", "others"), told, strict=True)
    ] == [True] * 2
    assert main(command) == 0 and "replaced" not in capsys.readouterr().err  # the same samples again

    def a_cluster(*given: Any) -> Any:
        raise InputError("a cluster was started")

    monkeypatch.setattr("aft_ray.commands.predict.ray_cluster", a_cluster)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert main(command) == 2 and "a cluster was started" in capsys.readouterr().err
    monkeypatch.delenv("RAY_ADDRESS")
    Staged(Directory(Workspace.at(place).filesystem, str(place)), "0123abcd").mark_begun()  # its process died
    assert main(command) == 2 and "a cluster was started" in capsys.readouterr().err
    assert read(str(place)) == rows


def test_a_student_whose_model_is_gone_is_one_line(tmp_path: Path) -> None:
    recipe, _ = finished("bert", tmp_path)
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    (tmp_path / "bert" / "config.json").rename(tmp_path / "bert" / "gone.json")
    with pytest.raises(InputError, match="has no config.json"):
        predict(recipe, str(tmp_path / "lines.txt"))


def test_what_is_listed(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 4)
    folder = list_unseen(str(tmp_path / "photos"), ["image"])
    assert folder.table["id"].to_pylist() == ["1.png", "2.png", "deep/0.png", "deep/3.png"]
    assert list_unseen(str(tmp_path / "photos" / "1.png"), ["image"]).table["id"].to_pylist() == ["1.png"]
    (tmp_path / "lines.txt").write_text("a b\n\nc\n")
    assert list_unseen(str(tmp_path / "lines.txt"), ["text"]).table.select(["id", "text", "fault"]).to_pydict() == {
        "id": ["0", "1", "2"],
        "text": ["a b", None, "c"],
        "fault": [None, "its text is empty", None],
    }
    (tmp_path / "both.csv").write_text("image,text,more\nphotos/1.png,a,1\nphotos/9.png,b,2\n")
    both = list_unseen(str(tmp_path / "both.csv"), ["image", "text"])
    _, student = finished("open_clip", tmp_path)
    (part,) = both.rows(10)
    watch = Watch(AttemptsHere(), "decoding", 1)
    decoded = DecodeRows(both.root, student.transforms, watch)(part)
    assert decoded["inputs0"].shape == (1, 32, 32, 3) and decoded["inputs1"].shape == (1, 12)
    assert list(decoded["errors"]) == [1] and "9.png" in decoded["errors"][1]
    content = [(tmp_path / "photos" / "1.png").read_bytes()]
    pq.write_table(pa.table({"sample_id": ["x"], "image": content}), tmp_path / "shard.parquet")
    (part,) = list_unseen(str(tmp_path / "shard.parquet"), ["image"]).rows(1)
    assert (part["shard"], part["id"], part["image"], part["fault"]) == (0, ["x"], content, [None])


@pytest.mark.parametrize(
    ("name", "columns", "fault"),
    [
        ("nowhere", ["image"], "nowhere does not exist."),
        ("Is this a path?", ["text"], "does not exist. Texts are asked for in a file: a .txt with one on each line"),
        ("empty", ["image"], "empty holds no images (.jpg, .jpeg"),
        (
            "empty",
            ["text"],
            "empty must be a file of one of the kinds .txt, .parquet, .pq, .arrow, .csv, .tsv, ",
        ),
        (
            "lines.txt",
            ["image", "text"],
            ".jsonl.gz: the student reads image and text",
        ),
        (
            "table.csv",
            ["text"],
            "table.csv has no column 'text', which the run reads. Its columns: a, b.",
        ),
        ("broken.jsonl", ["text"], "broken.jsonl, row 1: not JSON: "),
        ("nothing.txt", ["text"], "nothing.txt holds nothing to predict."),
    ],
)
def test_what_cannot_be_predicted_is_one_line(name: str, columns: list[str], fault: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for file, content in (("lines.txt", "a"), ("table.csv", "a,b\n1,2\n"), ("broken.jsonl", "{{"), ("nothing.txt", "")):
        (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as raised:
        list_unseen(str(tmp_path / name), columns)
    assert fault in str(raised.value)


def test_an_output_that_holds_the_input_is_refused_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = finished("tiny:text", tmp_path)
    monkeypatch.setattr("aft_ray.commands.predict.ray_cluster", lambda *given: pytest.fail("a cluster was started"))
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("part-00007.parquet", "part-00008.parquet"):
        pq.write_table(pa.table({"text": ["one"]}), tables / name)
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    command = ["predict", str(tmp_path / "recipe.yaml"), str(tables / "part-00007.parquet"), "--output", str(tables)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("Nothing was changed.") == 2 and "Traceback" not in said
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before


def test_a_probe_reads_no_files(tmp_path: Path) -> None:
    recipe, _ = finished("linear_probe", tmp_path)
    with pytest.raises(InputError, match="is a linear probe: it reads teachers' features, not files."):
        predict(recipe, str(tmp_path))


def test_the_command_line_exports_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, _ = finished("tiny:cnn", tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert main(["export", str(tmp_path / "recipe.yaml")]) == 0
    assert "student.safetensors" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "recipe.yaml"), "run=other"]) == 2
    assert "holds no trained student" in capsys.readouterr().err
    assert main(["list", "students"]) == 0
    assert "open_clip:ARCHITECTURE[/TAG]" in capsys.readouterr().out
