from __future__ import annotations

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from aft_ray.models.images import ImageTransform, normalise
from aft_ray.recipe.errors import InputError


def encoded(width: int, height: int, mode: str = "RGB") -> bytes:
    random = np.random.default_rng(width * height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).convert(mode).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0", "resnet50.a1_in1k", "vit_base_patch16_siglip_224"])
@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 333), (64, 64), (17, 40)])
def test_a_crop_equals_timm_s_own_evaluation_transform(model: str, width: int, height: int) -> None:
    data = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict(), verbose=False)
    transform = ImageTransform.from_data_config(data, None)
    image = encoded(width, height)
    expected = create_transform(**data, is_training=False)(Image.open(io.BytesIO(image)).convert("RGB"))
    found = normalise(torch.from_numpy(transform(image).copy())[None], transform)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_grey_pictures_become_three_equal_channels() -> None:
    crop = ImageTransform(28)(encoded(28, 28, "L"))
    assert crop.shape == (28, 28, 3) and (crop[..., 0] == crop[..., 2]).all()


def test_an_unknown_way_of_cropping_is_refused() -> None:
    data = resolve_data_config({"crop_mode": "border"}, verbose=False)
    with pytest.raises(InputError, match="cropped by 'border'. Known: center, squash."):
        ImageTransform.from_data_config(data, None)
