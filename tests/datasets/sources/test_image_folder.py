"""Pictures that are not plain RGB go through prepare and are decoded to what they show."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.sources.image_folder import list_image_folder
from aft_ray.models.images import decode
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.side_by_side import open_store

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
"""(height, width) from black to white."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def grey(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).mean(2)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 10,000 x 10,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def turned() -> bytes:
    """A JPEG of an upright picture's pixels turned left, with the note that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(np.uint8(np.kron(RAMP, np.ones((8, 8))) * 255))
    return encoded(upright.transpose(Image.Transpose.ROTATE_90).convert("RGB"), "JPEG", exif=exif, quality=95)


def odd_pictures() -> dict[str, bytes]:
    eight = np.uint8(RAMP * 255)
    palette = Image.fromarray(eight).convert("P")
    frames = [Image.fromarray(eight), Image.fromarray(255 - eight)]
    return {
        "grey.png": encoded(Image.fromarray(eight), "PNG"),
        "grey-alpha.png": encoded(Image.fromarray(eight).convert("LA"), "PNG"),
        "cmyk.jpg": encoded(Image.fromarray(eight).convert("CMYK"), "JPEG", quality=100),
        "sixteen.png": encoded(Image.fromarray(np.uint16(RAMP * 65535)), "PNG"),
        "thirty-two.tif": encoded(Image.fromarray(np.int32(RAMP * 1e9)), "TIFF"),
        "fractions.tif": encoded(Image.fromarray(np.float32(RAMP)), "TIFF"),
        "palette.png": encoded(palette, "PNG", transparency=0),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_show_what_they_show(name: str) -> None:
    np.testing.assert_allclose(grey(decode(odd_pictures()[name])), RAMP * 255, atol=4)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    dark = np.uint16(RAMP * 20_000)
    found = grey(decode(encoded(Image.fromarray(dark), "PNG")))
    np.testing.assert_allclose(found, dark / 257, atol=0.6)


def test_a_turned_picture_is_decoded_upright() -> None:
    image = decode(turned())
    assert image.size == (64, 48)
    np.testing.assert_allclose(grey(image)[4::8, 4::8], RAMP * 255, atol=8)


def test_damaged_notes_of_a_picture_do_not_cost_it() -> None:
    broken = turned().replace(b"Exif\x00\x00MM", b"Exif\x00\x00??").replace(b"Exif\x00\x00II", b"Exif\x00\x00??")
    assert decode(broken).size == (48, 64)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ValueError, match="it has 10000 x 10000 pixels, more than"):
        decode(bomb())


def test_odd_pictures_are_prepared_and_bombs_quarantined(tmp_path: Path) -> None:
    content = {
        **odd_pictures(),
        "turned.jpg": turned(),
        "bomb.png": bomb(),
        "nothing.png": b"",
        "ünï cödé 图.png": turned(),
    }
    for label in ("a", "b"):
        for copy in range(5):
            folder = tmp_path / "pictures" / label / f"{copy}"
            folder.mkdir(parents=True)
            for name, encoded_picture in content.items():
                (folder / name).write_bytes(encoded_picture)
    dataset = {"source": "image_folder", "path": str(tmp_path / "pictures")}

    def given(**more: object) -> Recipe:
        return Recipe.model_validate(
            {"workspace": str(tmp_path / "work"), "dataset": {**dataset, **more}, "student": {"model": "tiny:cnn"}}
        )

    with pytest.raises(InputError) as caught:
        prepare(given())
    told = "bomb.png and 9 more cannot be read: it has 10000 x 10000 pixels, more than 89478485; dataset.max_pixels accepts"
    assert any(told in fault for fault in caught.value.faults)
    manifests = prepare(given(max_bad_samples=20))
    quarantined = {bad["sample_id"] for manifest in manifests.values() for bad in manifest["quarantined"]}
    assert len(quarantined) == 20 and {name.rpartition("/")[2] for name in quarantined} == {"bomb.png", "nothing.png"}
    shard = open_store(tmp_path / "work", "train").read_shard(0)
    assert any("ünï cödé 图.png" in sample_id for sample_id in shard["sample_id"])
    for image in shard["image"]:
        assert decode(image).mode == "RGB"


def test_names_are_in_the_order_of_their_parts_and_take_one_look_at_each_folder(tmp_path: Path) -> None:
    names = ["a/b/2.png", "a-b/c/1.png", "a/b-c/3.png", "a.b/4.png", "a/0.png", "b/5.PNG"]
    for name in names:
        picture = tmp_path / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(name.encode())
    found = list_image_folder(DatasetConfig(source="image_folder", path=str(tmp_path)))
    assert [item.sample_id for item in found.items] == [path.as_posix() for path in sorted(map(Path, names))]
    assert found.classes == ("a", "a-b", "a.b", "b")
    assert [found.classes[item.label] for item in found.items] == ["a", "a", "a", "a-b", "a.b", "b"]  # type: ignore[index]
    assert [item.num_bytes for item in found.items] == [len(item.sample_id) for item in found.items]
    read, uri = (pickle.loads(pickle.dumps(function)) for function in (found.read, found.uri))
    assert [read(n).decode() for n in range(6)] == [item.sample_id for item in found.items]
    assert [uri(n) for n in range(6)] == [f"{tmp_path}/{item.sample_id}" for item in found.items]
