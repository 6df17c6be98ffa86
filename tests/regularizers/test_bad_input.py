"""Every regularizer describes itself and is clear about bad input."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aft_ray.regularizers import REGULARIZERS, FeatureEncoder, build_regularizer
from tests.helpers.regularizers import STUDENT_DIM, TEACHER_DIMS, build


def test_every_regularizer_describes_itself_in_one_line() -> None:
    lines = [(regularizer.__doc__ or "").partition("\n")[0] for regularizer in REGULARIZERS.values()]
    assert all(line.endswith(".") for line in lines) and len(set(lines)) == len(lines)


@pytest.fixture
def good() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.ones(4, STUDENT_DIM), torch.ones(4, sum(TEACHER_DIMS))


def test_helpful_errors_about_features(good: tuple[Tensor, Tensor]) -> None:
    student, teacher = good
    with pytest.raises(ValueError, match=r"student_features must have shape \(rows, 12\), got \(4, 11\)\."):
        build("aft")(student[:, 1:], teacher)
    with pytest.raises(ValueError, match=r"teacher_features must have shape \(rows, 19\), got \(4, 18\)\."):
        build("kd")(student, teacher[:, 1:])
    with pytest.raises(ValueError, match=r"teacher_features must have shape \(rows, 19\), got \(19,\)\."):
        build("kd")(student[:1], teacher[0])
    with pytest.raises(ValueError, match=r"student_features must have as many rows as teacher_features, 4, got 3\."):
        build("rkd")(student[1:], teacher)
    with pytest.raises(ValueError, match=r"must have at least one row, got an empty batch\."):
        build("ft")(student[:0], teacher[:0])
    with pytest.raises(ValueError, match=r"student_features must be 2 tensor\(s\), one per modality, got 1\."):
        build("aft product")(student, teacher)


def test_values_are_checked_on_the_first_call_only(good: tuple[Tensor, Tensor]) -> None:
    student, teacher = good
    bad = teacher.clone()
    bad[2:, 0] = torch.nan
    regularizer = build("aft")
    with pytest.raises(ValueError, match=r"teacher_features must be finite, got NaN or infinity in 2 of 4 rows\."):
        regularizer(student, bad)
    with pytest.raises(ValueError, match=r"student_features must be finite, got NaN or infinity in 4 of 4 rows\."):
        regularizer(student / 0, teacher)
    regularizer(student, teacher)
    assert regularizer(student, bad).isnan()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("afta", {}, r"Unknown regularizer 'afta'\. Did you mean 'aft'\? Known: none, aft, aft_rbf, .*, btune\."),
        (
            "aft",
            {"learn_gate": True},
            r"Unknown option 'learn_gate' for regularizer 'aft'\. Known: combine, towers, normalize, learn_gates, scope\.",
        ),
        ("aft_rbf", {"combine": "product"}, r"Unknown option 'combine' for regularizer 'aft_rbf'\."),
        ("btune", {}, r"Regularizer 'btune' needs the options student_weights, teacher_weights, scores\."),
        ("aft", {"normalize": "yes"}, r"normalize must be one of none, per_teacher, got 'yes'\."),
        ("rkd", {"scope": "node"}, r"scope must be one of global, worker, got 'node'\."),
        ("kd", {"combine": "sum"}, r"combine must be one of concat, product, got 'sum'\."),
        ("aft", {"teacher_dims": []}, r"teacher_dims must be positive integers, at least one, got \[\]\."),
        ("aft", {"student_dim": 0}, r"student_dim must be positive integers, at least one, got \[0\]\."),
        ("aft", {"student_dim": (3, 4)}, r"student_dim must be an int unless combine='product', got \(3, 4\)\."),
        (
            "aft",
            {"combine": "product"},
            r"combine='product' needs a student_dim and a teacher dim per modality, got student_dim=3 and",
        ),
        (
            "kd",
            {"combine": "product", "student_dim": (3, 4, 5)},
            r"kd with combine='product' needs one teacher per tower of the student, or 'towers', got student_dim=\(3, 4, 5\)",
        ),
        ("aft", {"towers": [0, 0]}, r"towers are for combine='product', got \[0, 0\] with combine='concat'\."),
        (
            "aft",
            {"combine": "product", "student_dim": (3, 4), "towers": [0, 0]},
            r"towers must be a number from 0 to 1 for each of the 2 teachers, every tower with a teacher, got \[0, 0\]\.",
        ),
        (
            "kd",
            {"combine": "product", "student_dim": (3, 4), "towers": [0, 1, 1]},
            r"towers must be a number from 0 to 1 for each of the 2 teachers, .* got \[0, 1, 1\]\.",
        ),
        ("ft", {"encoder": FeatureEncoder([4])}, r"encoder must be fitted to teachers of widths \[2, 2\], got \[4\]\."),
        (
            "btune",
            {"student_weights": np.ones((5, 3)), "teacher_weights": [np.ones((5, 2))] * 2, "scores": [1.0]},
            r"scores must be one per teacher, 2, got 1\.",
        ),
        (
            "btune",
            {"student_weights": np.ones((5, 3)), "teacher_weights": [np.ones((4, 2))] * 2, "scores": [1.0, 1.0]},
            r"teacher_weights must have shape\(s\) \[\(5, 2\), \(5, 2\)\], \(classes, width\), got \[\(4, 2\), \(4, 2\)\]\.",
        ),
    ],
)
def test_helpful_errors_about_options(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_regularizer(name, **{"student_dim": 3, "teacher_dims": [2, 2], **changes})
