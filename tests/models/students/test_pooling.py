"""How a transformers student's tokens become features: what is the default, what is computed, what runs record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from aft_ray.export import load_student
from aft_ray.models import students
from aft_ray.models.students import build_student, recorded, resolved, student_transforms
from aft_ray.models.weights import load_state_dict
from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.training.inputs.data import Data
from aft_ray.training.provenance import differing_inputs, run_inputs, with_defaults
from tests.helpers import hub
from tests.helpers.small_students import batch, small_config, small_student
from tests.helpers.training import DATA, recipe, run

pytestmark = pytest.mark.slow

POOLED = [
    ("bert", "mean"), ("bert", "cls"), ("bert", "pooler"), ("bert", "last"), ("distilbert", "mean"), ("roberta", "mean"),
    ("roberta", "cls"), ("gpt2", "mean"), ("gpt2", "last"), ("llama", "last"), ("t5", "mean"),
]  # fmt: skip


def texts(data: Data, config: StudentConfig) -> Data:
    """`data` with texts in the place of its pictures."""
    (tokens,) = student_transforms(config)
    splits = {}
    for name in ("train", "validation", "test"):
        split: Any = getattr(data, name)
        ids = np.stack([tokens(hub.TEXTS[label]) for label in split.labels])
        splits[name] = dataclasses.replace(split, inputs=ids)
    return dataclasses.replace(data, **splits)


def plain_tokens(directory: Path, text: str) -> torch.Tensor:
    """(L, H): tokens of one text, by transformers alone."""
    model: Any = transformers.AutoModel.from_pretrained(directory).eval()
    ids = torch.tensor([transformers.AutoTokenizer.from_pretrained(directory)(text)["input_ids"]])
    with torch.no_grad():
        output = (model.encoder if model.config.is_encoder_decoder else model)(input_ids=ids)
    return output.last_hidden_state[0]


@pytest.mark.parametrize(("kind", "pooling"), [pair for pair in POOLED if pair[1] != "pooler"])
def test_features_are_the_pooled_tokens_of_the_model_alone(kind: str, pooling: str, tmp_path: Path) -> None:
    student = small_student(kind, tmp_path, pretrained=True, pooling=pooling).eval()
    with torch.no_grad():
        features = student(batch(student, hub.TEXTS))[1]
    for text, found in zip(hub.TEXTS, features, strict=True):
        tokens_LH = plain_tokens(tmp_path, text)
        expected = {"mean": tokens_LH.mean(0), "cls": tokens_LH[0], "last": tokens_LH[-1]}[pooling]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_pooler_is_bert_s_own(tmp_path: Path) -> None:
    student = small_student("bert", tmp_path, pretrained=True, pooling="pooler").eval()
    model: Any = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.tensor([transformers.AutoTokenizer.from_pretrained(tmp_path)(hub.TEXTS[0])["input_ids"]])
    with torch.no_grad():
        expected = model(input_ids=ids).pooler_output
        torch.testing.assert_close(student(batch(student, hub.TEXTS[:1]))[1], expected)


@pytest.mark.parametrize(("kind", "pooling"), POOLED)
def test_every_weight_is_trained(kind: str, pooling: str, tmp_path: Path) -> None:
    student = small_student(kind, tmp_path, pooling=pooling)
    logits, features = student(batch(student, hub.TEXTS))
    (logits.sum() + features.sum()).backward()
    assert [name for name, weight in student.named_parameters() if weight.grad is None] == []


def test_the_mean_is_the_default_where_the_model_s_own_head_is_no_trained_classifier(tmp_path: Path) -> None:
    config = small_config("roberta", tmp_path)
    file = tmp_path / "w.safetensors"
    save_file(load_state_dict(str(tmp_path / "model.safetensors")), file)
    pretrained = config.model_copy(update={"pretrained": True})
    own_weights = config.model_copy(update={"pretrained": True, "weights": str(file)})
    for given in (config, pretrained, own_weights):
        assert resolved(given).pooling == "mean" and build_student(given, 5).pooling == "mean"
    classifier = transformers.AutoModelForSequenceClassification.from_config(hub.text_config("roberta"))
    classifier.save_pretrained(tmp_path)
    assert resolved(pretrained).pooling == "head" and build_student(pretrained, 5).pooling == "head"
    assert resolved(config).pooling == "mean", "the head's weights are random then"
    assert resolved(own_weights).pooling == "mean", "a weights file fills the encoder alone"
    assert resolved(pretrained.model_copy(update={"pooling": "cls"})).pooling == "cls"
    assert resolved(StudentConfig(model="tiny:cnn")).pooling is None


@pytest.mark.parametrize(
    ("kind", "pooling", "line"),
    [
        ("tiny:cnn", "mean", "student.pooling has no meaning for tiny:cnn, only for transformers models."),
        ("timm", "cls", "student.pooling has no meaning for timm:test_vit, only for transformers models."),
        ("linear_probe", "mean", "student.pooling has no meaning for linear_probe"),
    ],
)
def test_pooling_is_for_transformers_models(kind: str, pooling: str, line: str, tmp_path: Path) -> None:
    (fault,) = students.faults(small_config(kind, tmp_path, pooling=pooling))
    assert line in fault


@pytest.mark.parametrize(
    ("kind", "pooling"), [("roberta", "pooler"), ("gpt2", "pooler"), ("t5", "last"), ("t5", "cls")]
)
def test_a_pooling_that_a_model_does_not_have_is_refused(kind: str, pooling: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="student.pooling must be mean"):
        build_student(small_config(kind, tmp_path, pooling=pooling), 5)


@pytest.mark.parametrize("pooling", [None, "head"])
def test_a_run_records_its_pooling_and_one_without_it_used_the_model_s_own_head(
    pooling: str | None, tmp_path: Path
) -> None:
    config = small_config("bert", tmp_path / "bert", pooling=pooling)
    given = override(recipe(steps=4, evaluate_every=2), {"student": config.model_dump()})
    run(given, tmp_path / "run", texts(DATA, config))
    student = load_student(tmp_path / "run")
    assert student.facts["student"]["pooling"] == (pooling or "mean")
    inputs = batch(student.student, hub.TEXTS)
    expected = student(inputs)

    if pooling == "head":
        file = tmp_path / "run" / "student" / "student.json"
        facts = json.loads(file.read_text())
        del facts["student"]["pooling"], facts["student"]["options"], facts["digest"]  # as runs of before wrote it
        file.write_text(json.dumps(facts))
        assert torch.equal(load_student(tmp_path / "run")(inputs), expected)


def test_a_run_of_before_goes_on_with_the_head_that_it_had(tmp_path: Path) -> None:
    def inputs(pooling: str | None) -> dict[str, Any]:
        student = small_config("bert", tmp_path, pooling=pooling).model_dump()
        return run_inputs(override(recipe(), {"student": student}), {})

    before = inputs("head")
    del before["recipe"]["student"]["pooling"], before["recipe"]["student"]["options"]
    assert differing_inputs(before, inputs("head")) == []
    assert differing_inputs(before, inputs(None)) == ["student.pooling"]
    assert differing_inputs(inputs(None), inputs("mean")) == []


def test_a_run_that_was_killed_before_goes_on_with_the_same_recipe(tmp_path: Path) -> None:
    given = override(recipe(), {"student": small_config("bert", tmp_path).model_dump()})
    fresh = with_defaults(given, None, {})
    assert fresh.student.pooling == "mean"
    before = run_inputs(override(given, {"student.pooling": "head"}), {})
    del before["recipe"]["student"]["pooling"], before["recipe"]["student"]["options"]
    assert with_defaults(given, before, {}).student.pooling == "head"
    assert with_defaults(given, run_inputs(fresh, {}), {}) == fresh
    assert with_defaults(override(given, {"student.pooling": "cls"}), before, {}).student.pooling == "cls"
    assert with_defaults(recipe(), before, {}).student == recipe().student


def test_what_a_run_of_another_student_recorded_is_read_as_it_is() -> None:
    assert recorded({"model": "tiny:cnn"}) == StudentConfig(model="tiny:cnn")
    assert recorded({"model": "transformers:x", "pooling": "mean"}).pooling == "mean"
    assert recorded({"model": "transformers:x"}).pooling == "head"
