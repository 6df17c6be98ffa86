"""Small models that are trained: each gives logits and the features its last layer takes."""

from __future__ import annotations

from aft_ray.config import InputError, StudentConfig
from aft_ray.images import ImageTransform
from aft_ray.students.base import Student

__all__ = ["LIBRARIES", "Student", "build_student", "faults", "student_transform"]

LIBRARIES = ("tiny", "timm")


def build_student(config: StudentConfig, num_classes: int, *, for_inference: bool = False) -> Student:
    """The student with a fresh head for `num_classes`; random initial weights come from torch's global generator.

    for_inference: the weights will be loaded over it, so none are fetched.
    Raises InputError or FileNotFoundError if the model or its weights cannot be found.
    """
    if _library(config) == "tiny":
        from aft_ray.students import tiny

        return tiny.build(config, num_classes)
    from aft_ray.students import timm_student

    return timm_student.build(config, num_classes, for_inference=for_inference)


def student_transform(config: StudentConfig) -> ImageTransform:
    """How an image becomes the student's input."""
    if _library(config) == "tiny":
        from aft_ray.students import tiny

        return tiny.transform(config)
    from aft_ray.students import timm_student

    return timm_student.transform(config)


def faults(config: StudentConfig) -> list[str]:
    """What is wrong with the recipe's `student`, one line each."""
    try:
        student_transform(config)
    except InputError as error:
        return error.faults
    except FileNotFoundError as error:
        return [f"student.weights: {error}"]
    return []


def _library(config: StudentConfig) -> str:
    library, separator, model = config.model.partition(":")
    if not separator or not model:
        raise InputError(f"Student '{config.model}' must have the form LIBRARY:MODEL, such as tiny:cnn.")
    if library not in LIBRARIES:
        raise InputError(f"Unknown student library '{library}' in '{config.model}'. Known: {', '.join(LIBRARIES)}.")
    return library
