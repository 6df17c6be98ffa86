"""The model card of an exported student: README.md as the model hub reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml

import aft_ray
from aft_ray.export.published import public
from aft_ray.export.scores import SCORES
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.printable import printable

LISTED_CLASSES = 50
PIPELINES = {"image": "image-classification", "text": "text-classification"}


def model_card(
    facts: Mapping[str, Any],
    *,
    title: str,
    modality: str,
    library: str,
    has_pipeline: bool,
    usage: str,
    place: str,
    transforms: Sequence[str],
    text: str | None,
    onnx_inputs: Mapping[str, Sequence[str]],
    onnx_difference: float | None,
    num_samples: Mapping[str, int],
    inputs: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> str:
    """Markdown with the hub's YAML on top.

    facts: content of the export's `student.json`. has_pipeline: whether the hub's pipeline for the modality loads the
    student. usage: Python that loads it. place: what `load_student` takes for it. text: how a row becomes the
    student's text, if it reads one. onnx_inputs: the free axes of each input of the
    ONNX file; empty without such a file. num_samples: by split, where it is known. inputs: content of `lineage.json`.
    evaluation: content of `evaluation-test.json`; both are empty without the file.
    """
    data = facts.get("dataset", {})
    name = str(data.get("name") or data.get("path") or "unknown")
    scores = _scores(facts, evaluation)
    pipeline = {"pipeline_tag": PIPELINES[modality]} if has_pipeline and modality in PIPELINES else {}
    header = {"library_name": library, **pipeline, **_header(facts, title, modality, name, scores)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aft_ray.export", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value, keep="\n") if isinstance(value, str) else value,
    )
    environment.filters["hash"], environment.filters["public"] = fingerprint, public
    return environment.get_template("model_card.md.j2").render(
        header=yaml.safe_dump(header, sort_keys=False).strip(),
        title=title,
        facts=facts,
        student=facts["student"],
        task=facts.get("task", "classification"),
        regularizer=facts.get("regularizer", {"name": "none", "beta": 0.0}),
        teachers=facts.get("teachers", ()),
        classes=[printable(name) for name in facts["classes"][:LISTED_CLASSES]],
        data=name,
        splits=", ".join(f"{count} {split}" for split, count in num_samples.items()),
        scores=scores,
        library=library,
        usage=usage,
        place=place,
        has_pipeline=has_pipeline,
        transforms=transforms,
        text=text,
        onnx_inputs=onnx_inputs,
        onnx_difference=onnx_difference,
        samples=inputs.get("samples") or {},
        features=inputs.get("teachers") or {},
        train=inputs.get("recipe", {}).get("train", {}),
        version=aft_ray.__version__,
    )


def _scores(facts: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Scores by name: on test from the evaluation, or else from training; on validation from training."""
    found = {f"{text} (test)": evaluation.get(key) for key, text in SCORES.items()}
    if not evaluation:
        found |= {"accuracy (test)": facts.get("test_accuracy"), "loss (test)": facts.get("test_loss")}
    found |= {"accuracy (validation)": facts.get("val_accuracy"), "loss (validation)": facts.get("val_loss")}
    return {text: value for text, value in found.items() if value is not None}


def _header(
    facts: Mapping[str, Any], title: str, modality: str, data: str, scores: Mapping[str, float]
) -> dict[str, Any]:
    """The hub's metadata besides the library. Its results are the scores on test."""
    keys = {f"{text} (test)": key for key, text in SCORES.items()}
    results = [
        {"type": keys.get(text, "loss"), "value": round(value, 6), "name": text}
        for text, value in scores.items()
        if text.endswith("(test)")
    ]
    header: dict[str, Any] = {"tags": ["adaptive-feature-transfer", "aft-ray"]}
    if results:
        task = {"type": PIPELINES.get(modality, facts.get("task", "classification"))}
        measured = {"task": task, "dataset": {"name": data, "type": data, "split": "test"}, "metrics": results}
        header["model-index"] = [{"name": title, "results": [measured]}]
    return header
