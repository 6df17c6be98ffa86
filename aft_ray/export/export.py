"""export: a trained student as a plain model, in the format of the library that it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from aft_ray.cluster.lease import lease
from aft_ray.datasets import row_form
from aft_ray.export.card import model_card
from aft_ray.export.hub import SCHEME, usage_on_hub
from aft_ray.export.onnx_file import check_onnx, write_onnx
from aft_ray.export.published import check_loads_elsewhere, public, public_facts, public_inputs
from aft_ray.export.replacement import file_hashes, publish, staging, write_record
from aft_ray.export.run_files import read_evaluation, run_inputs, trained_on
from aft_ray.export.student import FACTS, WEIGHTS, Classifier, load_student
from aft_ray.models.images import ImageTransform
from aft_ray.models.students import LibraryStudent, modality, recorded
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.json_files import sealed
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.printable import printable
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace

OWN_USAGE = """\
from aft_ray.export import load_student
model = load_student("DIRECTORY")  # in evaluation mode; gives logits
(transform,) = model.transforms  # from encoded bytes, or a text, to one row of its input
"""
PROBE_USAGE = """\
from aft_ray.export import load_student
model = load_student("DIRECTORY")  # in evaluation mode; gives logits from the teachers' features side by side
"""


def export(recipe: Recipe, *, onnx: bool = False, repository: str | None = None) -> Directory:
    """Writes the student of `runs/<run>` to `runs/<run>/export/` and returns that directory (see `replacement`).

    The student's library loads the files by itself; README.md, the model card, says how. A tiny student and a linear probe
    belong to no library: `load_student` takes the directory. With `onnx`, also `model.onnx`. `repository`: the repository of
    the model hub that the card's lines name, for `push`. Of two commands that export the same run, the second waits for the
    first.
    Raises InputError if there is no such student, its library has no place for it, or the ONNX file would not agree.
    """
    if onnx:
        check_onnx()
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    model = load_student(run)
    if repository is not None:
        check_loads_elsewhere(model.facts)
    with lease(workspace, f"exports/{recipe.run}"), staging(run / "export") as folder:
        usage = _save(model, run, folder)
        facts = _write_facts(model, folder)
        if repository is not None:
            usage = usage_on_hub(usage, repository)
        difference = write_onnx(model.student, folder / "model.onnx", _facts(model)) if onnx else None
        inputs = public_inputs(run_inputs(run))
        place = f"{SCHEME}{repository}" if repository else "DIRECTORY"
        card = _card(recipe, model, facts, usage, place, difference, inputs)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_record(folder, inputs)
        return publish(folder, run / "export")


def _facts(model: Classifier) -> dict[str, Any]:
    """Facts that another program needs beside the graph: names of the outputs, and how a picture becomes the input."""
    pictures = [asdict(transform) for transform in model.transforms if isinstance(transform, ImageTransform)]
    whole = {"task": model.task, "classes": model.classes}
    return whole | (
        {"mean": pictures[0]["mean"], "std": pictures[0]["std"], "image_transform": pictures[0]} if pictures else {}
    )


def _card(
    recipe: Recipe,
    model: Classifier,
    facts: Mapping[str, Any],
    usage: str,
    place: str,
    onnx_difference: float | None,
    inputs: Mapping[str, Any],
) -> str:
    workspace = Workspace.at(recipe.workspace)
    manifests = {split: workspace.samples(split).manifest() for split in SPLITS}
    axes = {} if onnx_difference is None else model.student.axes
    return model_card(
        facts,
        title=recipe.run,
        modality=modality(recorded(model.facts["student"])),
        library=model.student.library if isinstance(model.student, LibraryStudent) else "aft-ray",
        has_pipeline=not isinstance(model.student, LibraryStudent) or model.student.has_pipeline,
        usage=usage,
        place=place,
        transforms=[_shown(transform) for transform in model.transforms],
        text=_text_form(model, recipe),
        onnx_inputs={name: list(free) for name, free in axes.items()},
        onnx_difference=onnx_difference,
        num_samples={split: manifest["num_samples"] for split, manifest in manifests.items() if manifest},
        inputs=inputs,
        evaluation=read_evaluation(workspace.run(recipe.run), "test"),
    )


def _shown(transform: Any) -> str:
    """A transform without the place of its tokenizer on this machine."""
    if not is_dataclass(transform):
        return repr(transform)
    places = {name: value for name in ("place", "name") if isinstance(value := getattr(transform, name, None), str)}
    return repr(replace(transform, **{name: public(value) for name, value in places.items()}))  # type: ignore[type-var]


def _text_form(model: Classifier, recipe: Recipe) -> str | None:
    """How the columns of a row become the student's text; None if it reads no text."""
    if all(transform.column != "text" for transform in model.transforms):
        return None
    content = row_form(trained_on(model.facts, recipe)).content
    columns = " and ".join(f"`{name}`" for name in content.texts)
    if content.prompt:
        made = f"`{printable(content.prompt)}`, with the column{'s' if len(content.texts) > 1 else ''} {columns} put in"
    elif len(content.texts) > 1:
        made = f"the columns {columns}, one per line"
    else:
        return f"the column {columns}, as it is."
    return f"{made}: `aft-ray predict` does so, in Python give the finished text."


def _save(model: Classifier, run: Directory, place: Path) -> str:
    """Writes the model, and returns the lines of Python that load it."""
    if isinstance(model.student, LibraryStudent):
        return model.student.save(place, model.classes, model.task)
    (place / WEIGHTS).write_bytes((run / "student").read(WEIGHTS))
    name = str(model.facts["student"]["model"])
    own = f"# {name.partition(':')[0]}, the module of the student's class, must be installed or lie here\n"
    return (own if is_own_class(name) else "") + (OWN_USAGE if model.transforms else PROBE_USAGE)


def _write_facts(model: Classifier, place: Path) -> dict[str, Any]:
    """Writes and returns the facts that `load_student` needs beside the files of the model, which are there."""
    library = {"library": model.student.library} if isinstance(model.student, LibraryStudent) else {}
    facts = {**public_facts(model.facts), **library, "sha256": file_hashes(place)}
    (place / FACTS).write_bytes(sealed(json.dumps(facts, indent=1)))
    return facts
