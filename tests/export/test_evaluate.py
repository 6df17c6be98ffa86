from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from aft_ray.cli import main
from aft_ray.commands.evaluate import show_scores
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.export.student import load_student
from aft_ray.models.students import build_student
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import features_schema, samples_schema
from aft_ray.store.shards import samples_fingerprint
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import open_setup as open_samples
from aft_ray.training.provenance import origin, run_inputs
from aft_ray.training.runs import RunDirectory

TEXTS = ["good and kind", "bad", "good", "so bad and sad", "kind", ""]


@pytest.fixture
def trained(tmp_path: Path, image_folder: Path) -> Recipe:
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder)},
            "student": {"model": "tiny:cnn"},
            "regularizer": {"name": "none"},
            "train": {"steps": 8, "global_batch_size": 16, "learning_rate": 0.003},
        }
    )
    prepare(recipe)
    run = Workspace.at(recipe.workspace).run("main")
    fit(recipe, load_data(recipe, open_samples(recipe).stores), directory=run, report=lambda metrics, state: None)
    return recipe


def made_by_hand(tmp_path: Path, student: str, task: str, labels: list[Any], classes: list[str]) -> Recipe:
    """A test split of texts, features of one teacher for it, and a run with a student of random weights."""
    workspace = Workspace.at(tmp_path / "work")
    samples, ids = workspace.samples("test"), [f"s{k}" for k in range(len(TEXTS))]
    schema = samples_schema("text", task, len(classes))
    samples.write_shard(0, pa.table([ids, pa.array(labels, schema.field("label").type), TEXTS], schema=schema), {})
    manifest = samples.write_manifest(1, {}, modality="text", task=task, classes=classes)
    features = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 3)
    directory, fingerprint = workspace.features("one", "test"), {"samples": samples_fingerprint(manifest)}
    table = pa.table([ids, column.cast(features_schema(3, "float32").field(1).type)], names=["sample_id", "features"])
    directory.write_shard(0, table, fingerprint)
    directory.write_manifest(1, fingerprint, feature_dim=3)
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": "one", "model": "timm:one"}],
            "student": {"model": student},
        }
    )
    weights = build_student(recipe.student, len(classes), teacher_dims=[3]).state_dict()
    facts = {
        "student": recipe.student.model_dump(mode="json"),
        "task": task,
        "classes": classes,
        "teachers": [{"name": "one", "model": "timm:one", "feature_dim": 3}],
    }
    save_student(workspace.run("main") / "student", {f"student.{k}": t for k, t in weights.items()}, facts)
    return recipe


def test_a_run_s_score_is_repeated_class_by_class(trained: Recipe) -> None:
    result = evaluate(trained)
    place = Path(trained.workspace) / "runs" / "main"
    last = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])
    assert result["accuracy"] == pytest.approx(last["test_accuracy"])
    assert result["nll"] == pytest.approx(last["test_loss"], rel=1e-5)
    confusion = np.array(result["confusion"])
    manifest = Workspace.at(trained.workspace).samples("test").manifest()
    assert manifest is not None
    assert confusion.sum(1).tolist() == list(manifest["samples_per_class"].values())
    assert result["per_class"][1]["class"] == "top"
    assert result["per_class"][1]["recall"] == pytest.approx(confusion[1, 1] / confusion[1].sum())
    written = json.loads((place / "evaluation-test.json").read_text())
    assert {key: written[key] for key in result} == result


def test_every_sample_is_in_the_predictions_once_also_when_they_are_streamed(trained: Recipe) -> None:
    result = evaluate(trained, all_probabilities=True)
    path = Path(trained.workspace) / "runs" / "main" / "predictions-test.parquet"
    table = pq.read_table(path)
    classes = json.loads(table.schema.metadata[b"classes"])
    assert classes == ["bottom", "top"]
    store = open_samples(trained).stores["test"]
    shards = [store.read_shard(k) for k in range(store.num_shards)]
    assert table["sample_id"].to_pylist() == [name for shard in shards for name in shard["sample_id"]]
    assert table["label"].to_pylist() == [classes[label] for shard in shards for label in shard["label"]]
    probabilities = np.array(table["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert table["predicted"].to_pylist() == [classes[k] for k in probabilities.argmax(1)]
    assert (table["probability"].to_numpy() == probabilities.max(1).astype(np.float32)).all()
    right = [a == b for a, b in zip(table["predicted"].to_pylist(), table["label"].to_pylist(), strict=True)]
    assert np.mean(right) == pytest.approx(result["accuracy"])
    assert evaluate(override(trained, {"train.streaming": True})) == result
    assert pq.read_table(path).equals(table.drop_columns("probabilities"))


def test_samples_that_training_streamed_are_not_held_in_memory(
    trained: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = evaluate(trained)
    run = RunDirectory(Workspace.at(trained.workspace).run("main"))
    assert run.is_streamed is None, "made without a claim"
    streamed = override(trained, {"train.streaming": True})
    run.place.write("config.yaml", dump(streamed).encode())
    run.claim(streamed, run_inputs(streamed, origin(open_samples(trained).stores)))
    monkeypatch.delattr("aft_ray.export.evaluate.load_split")
    assert trained.train.streaming is None and evaluate(trained) == result


def test_several_labels(tmp_path: Path) -> None:
    labels: list[Any] = [[1, 0], [0, 1], [1, None], [0, 1], None, [1, 1]]
    recipe = made_by_hand(tmp_path, "tiny:text", "multilabel", labels, ["kind", "sad"])
    result = evaluate(recipe, all_probabilities=True)
    table = pq.read_table(tmp_path / "work" / "runs" / "main" / "predictions-test.parquet")
    assert result["num_samples"] == 5 and [row["n"] for row in result["per_class"]] == [3, 3]
    assert table["label"].to_pylist() == [["kind"], ["sad"], ["kind"], ["sad"], None, ["kind", "sad"]]
    assert table["unknown"].to_pylist() == [[], [], ["sad"], [], ["kind", "sad"], []]
    right = []
    for row in table.to_pylist():
        own = [name for name, chance in zip(["kind", "sad"], row["probabilities"], strict=True) if chance > 0.5]
        assert row["predicted"] == own and row["probability"] == [p for p in row["probabilities"] if p > 0.5]
        right += [
            (name in own) == (name in (row["label"] or ())) for name in ("kind", "sad") if name not in row["unknown"]
        ]
    assert len(right) == 9 and result["accuracy"] == pytest.approx(np.mean(right))


def test_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = made_by_hand(tmp_path, "tiny:text", "regression", [[1], [-1], [0.5], [-2], None, [0]], ["kindness"])
    result = evaluate(recipe, all_probabilities=True)
    rows = pq.read_table(tmp_path / "work" / "runs" / "main" / "predictions-test.parquet").to_pylist()
    assert [*rows[0]] == ["sample_id", "label", "predicted"] and rows[4]["label"] is None
    errors = [row["label"][0] - row["predicted"][0] for row in rows if row["label"]]
    assert len(errors) == 5 and result["mse"] == pytest.approx(np.square(errors).mean(), rel=1e-5)
    show_scores(recipe, result)
    told = capsys.readouterr().out
    assert "Output by output" in told and "class" not in told and "matrix" not in told


def test_a_probe_reads_its_teachers_features(tmp_path: Path) -> None:
    recipe = made_by_hand(tmp_path, "linear_probe", "classification", [0, 1, 0, 1, -1, 0], ["kind", "sad"])
    result = evaluate(recipe)
    assert result["num_samples"] == 5
    table = pq.read_table(tmp_path / "work" / "runs" / "main" / "predictions-test.parquet")
    assert table["label"].to_pylist() == ["kind", "sad", "kind", "sad", None, "kind"]
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    with torch.no_grad():
        logits = load_student(tmp_path / "work" / "runs" / "main")(torch.from_numpy(features))
    assert table["predicted"].to_pylist() == [["kind", "sad"][k] for k in logits.argmax(1)]


def test_the_tables_are_cut_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = [f"[/{k}]" for k in range(25)]  # what looks like markup stays as it is
    recipe = made_by_hand(tmp_path, "tiny:text", "classification", [0, 1, 2, 3, 24, 24], classes)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert main(["evaluate", str(tmp_path / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "Run 'main' on 6 samples of split test" in printed and "expected calibration error" in printed
    assert "The 20 classes with the lowest f1; 5 more are not listed" in printed and "[/1]" in printed
    assert "/runs/main/evaluation-test.json" in printed and "/runs/main/predictions-test.parquet" in printed
    recipe = made_by_hand(
        tmp_path / "numbers", "tiny:text", "regression", [[1], [2], None, [4], [5], [6]], ["kindness"]
    )
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert main(["evaluate", str(tmp_path / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "mean squared error" in printed and "kindness" in printed


def test_what_cannot_be_evaluated_is_named(trained: Recipe) -> None:
    with pytest.raises(InputError, match="Unknown split 'tset'. Known: train, validation, test."):
        evaluate(trained, "tset")
    with pytest.raises(InputError, match="holds no trained student"):
        evaluate(trained.model_copy(update={"run": "other"}))


def test_samples_of_another_kind_are_refused(tmp_path: Path, trained: Recipe) -> None:
    texts = made_by_hand(tmp_path / "texts", "tiny:text", "classification", [0, 1, 0, 1, 1, 0], ["bottom", "top"])

    def fault(recipe: Recipe, change: dict[str, Any]) -> str:
        student = Path(trained.workspace) / "runs" / "main" / "student"
        facts = json.loads((student / "student.json").read_text())
        facts.pop("digest", None)  # a change would show
        (student / "student.json").write_text(json.dumps(facts | change))
        run = Workspace.at(recipe.workspace).run("main") / "student"
        for name in ("student.json", "student.safetensors"):
            run.write(name, (student / name).read_bytes())
        with pytest.raises(InputError) as raised:
            evaluate(recipe)
        return str(raised.value)

    assert "reads images, the samples are texts." in fault(texts, {})
    assert "was trained for regression, the samples are for classification." in fault(trained, {"task": "regression"})
    assert "was trained with 2 classes, the samples have 2, and the lists differ." in fault(
        trained, {"task": "classification", "classes": ["a", "b"]}
    )


def test_names_cannot_steer_the_terminal_or_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["\x1b[31mred", "two\n# lines"]
    recipe = made_by_hand(tmp_path, "tiny:text", "classification", [0, 1, 0, 1, 0, 1], classes)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert main(["evaluate", str(tmp_path / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\\x1b[31mred" in printed and "two\\n# lines" in printed
    assert main(["export", str(tmp_path / "recipe.yaml")]) == 0
    card = (tmp_path / "work" / "runs" / "main" / "export" / "README.md").read_text()
    assert "\x1b" not in card and "Outputs, in order: \\x1b[31mred, two\\n# lines" in card
