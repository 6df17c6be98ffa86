"""Teachers of pictures have the features of a plain loop, at any size."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.errors import InputError
from tests.helpers import hub
from tests.helpers.transformers_teachers import CPU, assert_equal, config, one_by_one


def encoded(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


IMAGES: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "vit": lambda model, row: model(**row).last_hidden_state[:, 0],
    "dinov2": lambda model, row: model(**row).last_hidden_state[:, 0],
    "clip": lambda model, row: model.get_image_features(**row),
    "siglip": lambda model, row: model.get_image_features(**row),
}


def plain(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@pytest.mark.parametrize("family", IMAGES)
def test_images_have_the_features_of_a_plain_loop(family: str, tmp_path: Path) -> None:
    place = hub.save_image_model(family, tmp_path)
    given = config(place)
    pictures = [encoded(61, 40), encoded(37, 90), encoded(32, 32), encoded(20, 51)]
    transform = describe_teacher(given).transform
    assert transform is not None
    teacher = build_teacher(given, CPU)
    found = teacher(np.stack([transform(picture) for picture in pictures]))
    processor = transformers.AutoImageProcessor.from_pretrained(place, backend="pil")
    model = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        rows = [processor(Image.open(io.BytesIO(picture)), return_tensors="pt") for picture in pictures]
        expected = torch.cat([plain(IMAGES[family](model, row)) for row in rows])
    assert teacher.feature_dim == expected.shape[1]
    assert_equal(found, expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_text_tower_has_the_features_of_a_plain_loop_and_is_alone_on_the_device(
    family: str, tmp_path: Path
) -> None:
    place = hub.save_image_model(family, tmp_path)
    given = config(place, tower="text")
    assert describe_teacher(given).modality == "text"
    assert describe_teacher(given).fingerprint != describe_teacher(config(place)).fingerprint
    teacher = build_teacher(given, CPU)
    padding = {"padding": "max_length", "max_length": 16} if family == "siglip" else {}
    expected = one_by_one(
        place, lambda model, row: plain(model.get_text_features(input_ids=row["input_ids"])), **padding
    )
    assert_equal(teacher(hub.TEXTS), expected)
    assert_equal(teacher(hub.TEXTS), torch.cat([teacher([text]) for text in hub.TEXTS]))


def test_image_size_resamples_the_position_embeddings(tmp_path: Path) -> None:
    for family, extra in (("vit", {"interpolate_pos_encoding": True}), ("dinov2", {})):
        place = hub.save_image_model(family, tmp_path / family)
        given = config(place, image_size=48)
        crops = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
        transform = describe_teacher(given).transform
        assert transform is not None and transform.size == 48
        assert transform.resized == (48 if family == "vit" else round(48 * 37 / 32))
        mean, std = np.array(transform.mean), np.array(transform.std)
        pixels = torch.from_numpy(((crops / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            model = transformers.AutoModel.from_pretrained(place).eval()
            expected = model(pixel_values=pixels, **extra).last_hidden_state
        assert_equal(build_teacher(given, CPU)(crops), expected[:, 0])
        patches = build_teacher(config(place, image_size=48, pooling="mean"), CPU)(crops)
        assert_equal(patches, expected[:, 1:].mean(1))


def test_a_convolution_s_map_is_averaged_and_cannot_be_told_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model = transformers.AutoModel.from_config(small).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(hub.PROCESSORS["vit"]))
    with pytest.raises(InputError, match="resnet models have no default pooling; set 'pooling' to one of cls, mean"):
        describe_teacher(config(tmp_path))
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(crops.transpose(0, 3, 1, 2)).float() / 127.5 - 1
        expected = model(pixel_values=pixels).last_hidden_state.mean((2, 3))
    found = build_teacher(config(tmp_path, pooling="mean"), CPU)(crops)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="'image_size' cannot be changed for resnet models"):
        build_teacher(config(tmp_path, pooling="mean", image_size=64), CPU)
