"""export: a trained student as a plain model, in the format of the library that it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aft_ray.export.card import model_card
from aft_ray.export.onnx_file import check_onnx, write_onnx
from aft_ray.export.student import Classifier, load_student
from aft_ray.models.students import LibraryStudent, modality
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace

OWN_FILES = ("student.safetensors", "student.json")
OWN_USAGE = """\
from aft_ray.export.export import load_student
model = load_student("DIRECTORY")  # in evaluation mode; gives logits
(transform,) = model.transforms  # from encoded bytes, or a text, to one row of its input
"""
PROBE_USAGE = """\
from aft_ray.export.export import load_student
model = load_student("DIRECTORY")  # in evaluation mode; gives logits from the teachers' features side by side
"""


def export(recipe: Recipe, *, onnx: bool = False) -> Directory:
    """Writes the student of `runs/<run>` to `runs/<run>/export/` and returns that.

    The files are those that the student's library loads by itself, and README.md, a model card that says how. A tiny
    student and a linear probe belong to no library: `load_student` takes the directory. With `onnx`, also `model.onnx`.
    Raises InputError if there is no such student, its library has no place for it, or the ONNX file would not agree.
    """
    if onnx:
        check_onnx()
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    model = load_student(run)
    manifests = {split: workspace.samples(split).manifest() for split in SPLITS}
    with TemporaryDirectory() as name:
        place = Path(name)
        usage = _save(model, run, place)
        difference = write_onnx(model.student, place / "model.onnx") if onnx else None
        inputs = _read_json(run, "inputs.json")
        (place / "lineage.json").write_text(json.dumps(inputs, indent=1), encoding="utf-8")
        card = model_card(
            model.facts,
            title=recipe.run,
            modality=modality(StudentConfig(**model.facts["student"])),
            library=model.student.library if isinstance(model.student, LibraryStudent) else "aft-ray",
            usage=usage,
            transforms=[repr(transform) for transform in model.transforms],
            onnx_inputs={name: list(axes) for name, axes in model.student.axes.items()} if onnx else {},
            onnx_difference=difference,
            num_samples={split: manifest["num_samples"] for split, manifest in manifests.items() if manifest},
            inputs=inputs,
            evaluation=_read_json(run, "evaluation-test.json"),
        )
        (place / "README.md").write_text(card, encoding="utf-8")
        target = run / "export"
        target.delete()
        for file in sorted(path for path in place.rglob("*") if path.is_file()):
            target.write(file.relative_to(place).as_posix(), file.read_bytes())
    return target


def _save(model: Classifier, run: Directory, place: Path) -> str:
    """Writes the model, and returns the lines of Python that load it."""
    if isinstance(model.student, LibraryStudent):
        return model.student.save(place, model.classes, model.task)
    for name in OWN_FILES:
        (place / name).write_bytes((run / "student").read(name))
    return OWN_USAGE if model.transforms else PROBE_USAGE


def _read_json(directory: Directory, name: str) -> dict[str, Any]:
    """Empty if there is no such file."""
    return json.loads(directory.read(name)) if directory.has(name) else {}
