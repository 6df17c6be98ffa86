"""Small models to train: each gives logits, and the features that its last layer reads."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aft_ray.models.adapters import import_adapter
from aft_ray.models.images import ImageTransform
from aft_ray.models.students.base import LibraryStudent, Student, refuse
from aft_ray.models.text import TextTransform
from aft_ray.models.weights import weights_file
from aft_ray.models.weights_file import library_fault
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.sections import StudentConfig, TeacherConfig

__all__ = [
    "KINDS",
    "OWN",
    "LibraryStudent",
    "Student",
    "build_student",
    "faults",
    "modality",
    "recorded",
    "resolved",
    "saved_in",
    "student_transforms",
]


@dataclass(frozen=True)
class Kind:
    """Students of one module. form: how a recipe names them. modality: columns that a data set must have for them."""

    form: str
    modality: str
    module: str
    summary: str


KINDS = {
    "tiny:cnn": Kind("tiny:cnn", "image", "tiny_cnn", "26 thousand weights on 28 pixel images, for laptops"),
    "tiny:text": Kind(
        "tiny:text",
        "text",
        "tiny_text",
        "half a million weights on hashed words, or on the word vectors of weights:, for laptops",
    ),
    "tiny:pair": Kind(
        "tiny:pair", "image+text", "tiny_pair", "tiny:cnn and tiny:text, and a head on the product of their features"
    ),
    "timm": Kind(
        "timm:NAME", "image", "timm_student", "an image model: NAME, hf-hub:REPOSITORY or local-dir:DIRECTORY"
    ),
    "transformers": Kind(
        "transformers:REPO_OR_DIRECTORY",
        "text",
        "transformers_student",
        "a sequence classifier: BERT, DistilBERT, RoBERTa, T5, GPT-2, ...",
    ),
    "open_clip": Kind(
        "open_clip:ARCHITECTURE[/TAG]",
        "image+text",
        "open_clip_student",
        "both towers of a CLIP, and a head on the product of their features",
    ),
    "linear_probe": Kind(
        "linear_probe", "features", "linear_probe", "a linear layer on the teachers' features: shows how much they know"
    ),
}
"""Values of `student.model`: a whole name, or the library in LIBRARY:MODEL."""
OWN = Kind(
    "MODULE:Class",
    "image, text or both",
    "own_student",
    "a class of your own; aft_ray/models/students/base.py has an example",
)


def build_student(
    config: StudentConfig, num_outputs: int, *, teacher_dims: Sequence[int] = (), for_inference: bool = False
) -> Student:
    """The student with a fresh head for `num_outputs`; random initial weights come from torch's global generator.

    teacher_dims: widths of the teachers' features, the input of a linear probe.
    for_inference: fetch no weights, since trained ones will be loaded.
    Raises InputError if the model or its weights cannot be found, or do not fit.
    """
    with _faults_named(config):
        student: Student = _adapter(config).build(config, num_outputs, tuple(teacher_dims), for_inference=for_inference)
    return student


def student_transforms(config: StudentConfig) -> tuple[ImageTransform | TextTransform, ...]:
    """The transforms that turn a sample into the student's inputs: one per modality, none for a linear probe.

    Raises InputError if the model or its weights cannot be found.
    """
    with _faults_named(config):
        transforms: tuple[ImageTransform | TextTransform, ...] = _adapter(config).transforms(config)
    return transforms


def resolved(config: StudentConfig) -> StudentConfig:
    """The config with the pooling that a transformers model gets, as runs record it."""
    if config.pooling is not None or _kind(config) is not KINDS["transformers"]:
        return config
    with _faults_named(config):
        return config.model_copy(update={"pooling": _adapter(config).default_pooling(config)})


def recorded(student: Mapping[str, Any]) -> StudentConfig:
    """The config that a run recorded. Runs from before `pooling` used the model's own head."""
    is_of_transformers = str(student["model"]).partition(":")[0] == "transformers"
    return StudentConfig(**{**({"pooling": "head"} if is_of_transformers else {}), **student})


def saved_in(directory: Path, config: StudentConfig) -> StudentConfig:
    """The config of a library's student that `LibraryStudent.save` wrote to `directory`: its origin is not needed."""
    library = config.model.partition(":")[0]
    place = str(directory) if library == "transformers" else f"local-dir:{directory}"
    return config.model_copy(update={"model": f"{library}:{place}", "pretrained": False, "weights": None})


def modality(config: StudentConfig) -> str:
    """The student's input: `image`, `text`, `image+text`, or the teachers' `features`.

    Raises InputError if the student is of no known kind.
    """
    kind = _kind(config)
    return "+".join(transform.column for transform in student_transforms(config)) if kind is OWN else kind.modality


def faults(config: StudentConfig) -> list[str]:
    """Faults of the recipe's `student`, one line each."""
    try:
        student_transforms(config)
        if config.weights is not None and not config.model.startswith("tiny:"):  # which read a checkpoint's directory
            with _faults_named(config):
                weights_file(config.weights)
        elif config.pretrained:
            _check_published(config)
    except InputError as error:
        return error.faults
    return []


def _check_published(config: StudentConfig) -> None:
    """Raises InputError if the published weights are out of reach.

    They are identified as a teacher's are, which asks the hub once. Its libraries, which would find out later, ask for a minute
    and write a warning each time.
    """
    if config.model.partition(":")[0] not in ("timm", "open_clip"):
        return  # transformers' are looked for with its settings; others have none
    from aft_ray.models.teachers import describe_teacher

    try:
        describe_teacher(TeacherConfig(model=config.model, name="student"))
    except InputError as error:
        raise InputError([fault.replace("Teacher 'student': ", "student.model: ") for fault in error.faults]) from error


def _kind(config: StudentConfig) -> Kind:
    library, separator, model = config.model.partition(":")
    kind = KINDS.get(config.model) or (KINDS.get(library) if model else None)
    if kind is not None:
        return kind
    own = [name for name in KINDS if name.startswith(f"{library}:")]
    if model and own:
        raise InputError(f"Unknown student '{config.model}'. Known {library} students: {', '.join(own)}.")
    if not model:
        raise InputError(f"student.model '{config.model}' must have the form LIBRARY:MODEL, such as tiny:cnn.")
    if is_own_class(config.model) and _exists(library.partition(".")[0]):
        return OWN
    libraries = ", ".join(dict.fromkeys(name.partition(":")[0] for name in KINDS))
    raise InputError(
        f"Unknown student library '{library}' in '{config.model}'. Known: {libraries}. A class of your own is written"
        " MODULE:Class, and its module must be installed or lie in the working directory."
    )


def _exists(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def _adapter(config: StudentConfig) -> Any:
    kind = _kind(config)
    if kind is not OWN:
        refuse(config, "options", why=f"{config.model}, only for a class of your own")
    if kind is not KINDS["transformers"]:
        refuse(config, "pooling", why=f"{config.model}, only for transformers models")
    if kind is not KINDS["timm"]:
        refuse(config, "drop_path", why=f"{config.model}, only for timm models")
    return import_adapter(f"{__name__}.{kind.module}")


@contextmanager
def _faults_named(config: StudentConfig) -> Iterator[None]:
    """Turns a library's error for a missing, unsafe or unfit file into one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"student.weights: {error}" if config.weights else f"{config.model}: {error}") from error
    except Exception as error:
        fault = library_fault(error, config.model, "name a local directory, or set student.pretrained=false")
        if fault is None:
            raise
        raise InputError(fault[:1].upper() + fault[1:]) from error
