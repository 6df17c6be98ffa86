"""Writes a student as an ONNX file, and checks that the file gives the same logits."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aft_ray.models.images import ImageTransform
from aft_ray.models.students import Student
from aft_ray.recipe.errors import InputError, in_a_line

NEEDED = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
LARGEST_FILE = 1_500_000_000
"""Bytes of weights in the file; larger weights are written beside it."""
MADE_FROM, CHECKED_WITH = 2, (1, 5)
"""Batch sizes. They differ, so that a file that is right for one size alone is found out."""
WORDS = ("a", "story", "of", "two", "cities", "and", "one", "river")


def check_onnx() -> None:
    """Raises InputError if a needed package is not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"ONNX needs the Python package {' and '.join(missing)}: pip install 'aft-ray[onnx]'.")


@torch.inference_mode()
def write_onnx(student: Student, path: Path, facts: Mapping[str, Any] | None = None) -> float:
    """Writes `student`, in evaluation mode on the CPU. Returns the largest difference of its logits from torch's.

    facts: metadata of the file, such as the names of the classes; each value is kept as JSON.

    The file takes the output of the student's `prepare`, with the names and free axes of its `axes`, and returns `logits`.
    Raises InputError, and leaves no file, if the student cannot be written, or the file's logits differ on batches of other
    sizes than it was made from.
    """
    check_onnx()
    if not student.axes:
        raise InputError(f"ONNX needs names of the inputs: {type(student).__name__} has no 'axes'.")
    size = sum(tensor.nbytes for tensor in student.state_dict().values())
    try:
        with _quietly(), torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(
                _Logits(student).eval(),
                student.prepare(example_inputs(student, MADE_FROM)),
                str(path),
                dynamo=True,
                verbose=False,
                input_names=list(student.axes),
                output_names=["logits"],
                dynamic_shapes=(tuple(dict(enumerate(names)) for names in student.axes.values()),),
                external_data=size > LARGEST_FILE,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"This student cannot be written as ONNX: {in_a_line(error)}") from error
    _write_facts(path, facts or {})
    difference = max(_difference(student, path, count) for count in CHECKED_WITH)
    if not difference <= TOLERANCE:
        path.unlink()
        raise InputError(f"The ONNX file's logits differ from torch's by {difference:.2g}: it was not kept.")
    return difference


def _write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Adds metadata, which runtimes give without the package that wrote it. Weights beside the file stay there."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for name, value in facts.items():
        model.metadata_props.add(key=name, value=json.dumps(value, ensure_ascii=False))
    onnx.save(model, str(path))


def example_inputs(student: Student, num_samples: int) -> Any:
    """A batch of random samples, as the student's transforms return it; the texts have different lengths."""
    random = np.random.default_rng(num_samples)
    batches: list[np.ndarray] = []
    for transform in student.transforms:
        if isinstance(transform, ImageTransform):
            shape = (num_samples, transform.size, transform.size, 3)
            batches.append(random.integers(0, 256, shape).astype(np.uint8))
        else:
            texts = [" ".join(random.choice(WORDS, 2 + 3 * row)) for row in range(num_samples)]
            batches.append(np.stack([transform(text) for text in texts]))
    if not batches:
        assert isinstance(student.feature_dim, int), "a probe has one width"
        batches.append(random.normal(size=(num_samples, student.feature_dim)).astype(np.float32))
    tensors = tuple(map(torch.from_numpy, batches))
    return tensors if len(tensors) > 1 else tensors[0]


class _Logits(torch.nn.Module):
    """The computation in the file: from prepared inputs to logits."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, *prepared: torch.Tensor) -> torch.Tensor:
        return self.student.run(*prepared)[0]


def _difference(student: Student, path: Path, num_samples: int) -> float:
    """The largest difference between the file's logits and torch's, divided by the largest logit if that exceeds one."""
    import onnxruntime

    prepared = student.prepare(example_inputs(student, num_samples))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    arrays = (tensor.numpy() for tensor in prepared)
    (found,) = session.run(None, dict(zip(student.axes, arrays, strict=True)))
    expected = student.run(*prepared)[0].numpy()
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the exporter's log and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
