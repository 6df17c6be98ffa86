from __future__ import annotations

import io
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from aft_ray.models import images
from aft_ray.models.images import ImageTransform, decode, normalise
from aft_ray.recipe.errors import InputError
from aft_ray.store.quarantine import UNREADABLE


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 45), (45, 60), (33, 47)])
def test_the_visible_part_alone_is_resized_where_the_whole_would_be_too_large(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for resized in (40, 28, 70):  # also a crop that is larger than the resized picture, and an enlarged one
        transform = ImageTransform(size=32, resized=resized, interpolation=interpolation)
        monkeypatch.setattr(images, "MAX_PIXELS", 10**9)
        whole = transform.crop(Image.fromarray(pixels))
        monkeypatch.setattr(images, "MAX_PIXELS", 32 * 32)
        part = transform.crop(Image.fromarray(pixels))
        assert whole.shape == part.shape == (32, 32, 3)
        difference = np.abs(whole.astype(int) - part)
        assert difference.mean() < 0.5 and difference.max() < 24  # Pillow rounds rows first, or columns


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (30_000, 2), (1, 5_000)])
def test_a_line_of_pixels_takes_little_memory(size: tuple[int, int]) -> None:
    line = io.BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(line, "PNG")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))\n"
        "from aft_ray.models.images import ImageTransform\n"
        "crop = ImageTransform(size=224, resized=256)(sys.stdin.buffer.read())\n"
        "assert crop.shape == (224, 224, 3) and (crop == [9, 8, 7]).all()"
    )
    subprocess.run([sys.executable, "-c", code], input=line.getvalue(), check=True, timeout=60)


def test_a_damaged_avif_is_unreadable() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)).save(stream, "AVIF")
    for place in range(len(stream.getvalue())):
        damaged = bytearray(stream.getvalue())
        damaged[place] ^= 255
        with suppress(*UNREADABLE):
            decode(bytes(damaged))


def test_torch_may_write_to_a_transform_s_array() -> None:
    assert ImageTransform(8)(encoded(9, 7)).flags.writeable  # else it warns
