from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from aft_ray.models.images import normalise
from aft_ray.models.processors import processor_transform
from aft_ray.recipe.errors import InputError
from tests.helpers.hub import CROPPED, SQUASHED

DEIT = {"image_processor_type": "DeiTImageProcessor", "size": 40, "crop_size": {"height": 32, "width": 32}}


def encoded(width: int, height: int, mode: str) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "settings",
    [
        CROPPED | {"image_processor_type": "CLIPImageProcessor"},
        CROPPED | {"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 33}, "resample": 2},
        CROPPED | {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 29}},  # padded with black
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 35, "crop_size": 32, "do_convert_rgb": True},
        {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True},
        SQUASHED | {"image_processor_type": "SiglipImageProcessor", "resample": 1},
        {"image_processor_type": "ViTImageProcessor", "size": 32, "do_normalize": False},
        {"image_processor_type": "ViTImageProcessor"},
        DEIT,
    ],
)
@pytest.mark.parametrize(("width", "height"), [(61, 40), (37, 90), (32, 32), (20, 51)])
def test_a_crop_equals_transformers_own_pillow_processor(
    settings: dict, width: int, height: int, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    transform = processor_transform(settings, "ViT", None)
    picture = encoded(width, height, "RGB")
    found = normalise(torch.tensor(transform(picture))[None], transform)[0]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = processor(Image.open(io.BytesIO(picture)), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_grey_pictures_are_converted_as_clip_does() -> None:
    settings = CROPPED | {"image_processor_type": "CLIPImageProcessor"}
    picture = encoded(61, 40, "L")
    transform = processor_transform(settings, "CLIP", None)
    processor = transformers.CLIPImageProcessorPil(**settings)
    expected = processor(Image.open(io.BytesIO(picture)), return_tensors="pt")["pixel_values"][0]
    found = normalise(torch.tensor(transform(picture))[None], transform)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_another_size_keeps_the_crop_s_share_of_the_picture() -> None:
    transform = processor_transform({"size": {"shortest_edge": 256}}, "CLIP", 112)
    assert (transform.size, transform.resized) == (112, 128)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "image processor SamImageProcessor is not known. Known: Bit,"),
        ({"do_rescale": False}, "with do_rescale = False cannot be reproduced, only True"),
        ({"rescale_factor": 1 / 127.5}, "with rescale_factor = 0.00784"),
        ({"do_pad": True}, "with do_pad = True cannot be reproduced"),
        ({"size": {"height": 32, "width": 48}}, r"with size = {'height': 32, 'width': 48} cannot be .*, only squares"),
        ({"size": {"longest_edge": 32}}, r"with size = {'longest_edge': 32} cannot be reproduced"),
        ({"crop_size": {"height": 3, "width": 4}}, r"with crop_size = {'height': 3, 'width': 4} cannot be reproduced"),
        ({"do_center_crop": False}, "and no crop makes images that are not square"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(settings: dict, line: str) -> None:
    with pytest.raises(InputError, match=line):
        processor_transform(settings, "CLIP", None)
