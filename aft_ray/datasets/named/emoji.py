"""Emoji: a picture with its English name, from the npm packages emoji-datasource-google and -twitter, unpacked."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import NotRequired, TypedDict

from aft_ray.datasets.base import Item, Listing, NamedDataset
from aft_ray.recipe.json_files import checked_json
from aft_ray.recipe.sections import DatasetConfig

CLASSES = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
"""The groups, without flags and components."""
VENDORS = ("google", "twitter")
HINT = (
    "npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0, unpack each into a folder of its own, and set"
    " dataset.path to the folder that holds them"
)


class _Emoji(TypedDict):
    """An entry of emoji.json, as far as it is read."""

    image: str
    short_name: str
    name: NotRequired[str | None]
    category: NotRequired[str | None]


def list_emoji(config: DatasetConfig) -> Listing:
    """Every vendor's picture of every emoji, 64 x 64, with its name. All pictures of an emoji fall into one split."""
    items, files, names = [], [], []
    for vendor, folder in _packages(config):
        file = folder / "emoji.json"
        for emoji in checked_json(file.read_bytes(), list[_Emoji], str(file), "Unpack the package again."):
            category = emoji.get("category")
            if category not in CLASSES or not emoji.get(f"has_img_{vendor}"):
                continue
            code = emoji["image"].removesuffix(".png")
            files.append(folder / "img" / vendor / "64" / emoji["image"])
            names.append((emoji.get("name") or emoji["short_name"].replace("_", " ")).lower())
            items.append(Item(f"{vendor}/{code}", CLASSES.index(category), None, None, code))
    return Listing(
        "image+text",
        CLASSES,
        tuple(items),
        lambda index: (files[index].read_bytes(), names[index]),
        lambda index: str(files[index]),
        truncation_side="right",
    )


def _packages(config: DatasetConfig) -> list[tuple[str, Path]]:
    """Each vendor whose pictures are there, and its unpacked package."""
    if not config.path:
        return []
    root = Path(config.path).expanduser()
    folders = sorted({file.parent for pattern in ("", "*/", "*/*/") for file in root.glob(f"{pattern}emoji.json")})
    return [(vendor, folder) for vendor in VENDORS for folder in folders if (folder / "img" / vendor / "64").is_dir()]


EMOJI = NamedDataset(
    name="emoji",
    modality="image+text",
    num_classes=len(CLASSES),
    num_samples=(3_272,),
    licence="Apache-2.0 (Google), CC-BY-4.0 (Twitter)",
    origin="npm: emoji-datasource-google, -twitter",
    keys=frozenset({"path"}),
    missing=lambda config: None if _packages(config) else HINT,
    list_samples=list_emoji,
)
