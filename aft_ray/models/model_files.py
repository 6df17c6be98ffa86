"""A model's files, in a directory or in a repository of the model hub, and the hashes that identify them.

Nothing large is downloaded to be identified, and the hub is not asked for cached files: its cache names a file by the hub's
own hash, SHA-256 for large ones.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from aft_ray.models.hub_connection import answers, is_offline
from aft_ray.models.weights import locate, sha256
from aft_ray.models.weights_file import check_weights_file
from aft_ray.recipe.errors import InputError, in_a_line
from aft_ray.recipe.json_files import checked_json

VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "merges.txt",
)
"""Files that hold a tokenizer or its vocabulary, the most complete first."""
NOT_AT_HAND = "is not in the model hub's cache"
"""In the line of a model whose files could be had elsewhere: nothing is wrong with the recipe."""


class _ShardIndex(TypedDict):
    """The file that says which shard holds each tensor."""

    weight_map: dict[str, str]


class ModelFiles(ABC):
    """The files of one model."""

    @property
    @abstractmethod
    def way_out(self) -> str:
        """Advice for a missing file, to end a message with."""

    @abstractmethod
    def digest(self, name: str) -> str | None:
        """Hash of the file's content; None if the file does not exist."""

    @abstractmethod
    def fetch(self, name: str) -> Path:
        """Path of the file on this machine; the file must exist."""

    def read_json(self, name: str, shape: Any = dict[str, Any]) -> Any:
        """A JSON file as plain values of the type `shape`; None if the file does not exist. Raises InputError."""
        if self.digest(name) is None:
            return None
        content = self.fetch(name).read_bytes()
        return checked_json(content, shape, f"{self}/{name}", "Copy or download it again.")

    def first(self, *names: str) -> str | None:
        """The first of `names` that exists."""
        return next((name for name in names if self.digest(name) is not None), None)

    def digests(self, *names: str) -> dict[str, str]:
        """Hashes of the existing files by name; a shard index includes its shards.

        Raises InputError if a shard is missing.
        """
        found: dict[str, str] = {}
        for name in names:
            digest = self.digest(name)
            if digest is None:
                continue
            found[name] = digest
            if name.endswith(".index.json"):
                shards = set((self.read_json(name, _ShardIndex) or {})["weight_map"].values())
                found |= self.digests(*sorted(shards))
                if lacking := sorted(shards - found.keys()):
                    raise InputError(f"{self} lacks {', '.join(lacking)} of {name}.{self.way_out}")
        return found

    def weights(self, names: Sequence[str]) -> dict[str, str]:
        """Hashes of the first of `names` that exists, and of its shards.

        Raises InputError if none exists, or its bytes show that it holds no weights.
        """
        name = self.first(*names)
        if name is None:
            raise InputError(f"{self} has no weights: looked for {', '.join(names)}.{self.way_out}")
        found = self.digests(name)
        for file in found:
            self.check(file)
        return found

    def check(self, name: str) -> None:
        """Raises InputError if the file is on this machine and its bytes show that it holds no weights."""
        return None

    def tokenizer(self) -> dict[str, str]:
        """Hashes of the files that define the model's tokenizer. Raises InputError if there is no vocabulary."""
        vocabulary = self.first(*VOCABULARIES)
        if vocabulary is None:
            raise InputError(f"{self} has no tokenizer: looked for {', '.join(VOCABULARIES)}.{self.way_out}")
        return self.digests(vocabulary, "tokenizer_config.json")


@dataclass(frozen=True)
class Directory(ModelFiles):
    """A directory on this machine."""

    path: Path

    def digest(self, name: str) -> str | None:
        path = self.path / name
        return sha256(path) if path.is_file() else None

    def fetch(self, name: str) -> Path:
        return self.path / name

    def check(self, name: str) -> None:
        if not name.endswith(".json"):
            check_weights_file(self.path / name)

    @property
    def way_out(self) -> str:
        return ""

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Repository(ModelFiles):
    """A repository of the model hub at one revision: a branch, a tag or a commit; None means its main branch."""

    name: str
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The revision to load: its cached commit, or the revision itself.

        Without the commit, a library would load a newer one than was identified as soon as the hub has it.
        """
        return self._cached_commit() or self.revision

    def digest(self, name: str) -> str | None:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        cached = try_to_load_from_cache(self.name, name, revision=self.revision)
        if isinstance(cached, str):
            return _hash_in_cache(Path(cached))
        if cached is not None:
            return None  # the cache knows that the repository has no such file
        try:
            check_connection()
            return _hash_on_hub(self.name, name, self.commit)
        except EntryNotFoundError:
            return None
        except Exception as error:  # each version of the hub's client has network errors of its own
            if self._cached_commit():
                return None  # an earlier download has cached all needed files
            raise self.out_of_reach(error) from error

    def fetch(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            check_connection()
            return Path(hf_hub_download(self.name, name, revision=self.commit))
        except Exception as error:
            raise self.out_of_reach(error) from error

    @property
    def way_out(self) -> str:
        revision = f" --revision {self.revision}" if self.revision else ""
        return f" Run 'hf download {self.name}{revision}' where there is a network, or name a local directory."

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def _cached_commit(self) -> str | None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type="model")
        revision = self.revision or "main"
        if (folder / "refs" / revision).is_file():
            return (folder / "refs" / revision).read_text(encoding="utf-8").strip()
        return revision if (folder / "snapshots" / revision).is_dir() else None

    def out_of_reach(self, error: Exception) -> InputError:
        """The error for a file that neither the cache nor the hub gives."""
        reason = in_a_line(error)
        return InputError(f"{self} {NOT_AT_HAND}, and the hub does not give it ({reason}).{self.way_out}")


def check_connection() -> None:
    """Raises ConnectionError if the hub does not answer."""
    if not is_offline() and not answers():
        raise ConnectionError("it cannot be reached")


def _hash_in_cache(path: Path) -> str:
    """The hub's own hash: the name of the file behind the cache's link; SHA-256 on file systems without links."""
    target = path.resolve()
    return target.name if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", target.name) else sha256(target)


@lru_cache(maxsize=1024)
def _hash_on_hub(repository: str, name: str, revision: str | None) -> str | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    return get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).etag


def model_files(place: str) -> ModelFiles:
    """The files of the model at `place`: a directory, also `package://MODULE/DIRECTORY` or a URL, or a repository.

    Raises FileNotFoundError if the directory does not exist, InputError if no repository can have this name.
    """
    if "://" in place or place.startswith(("/", "./", "../", "~")) or Path(place).is_dir():
        return Directory(locate(place))
    return repository(place)


def repository(place: str) -> Repository:
    """The repository ORGANISATION/NAME[@REVISION]. Raises InputError if no repository can have this name."""
    name, _, revision = place.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"'{place}' is neither a directory nor a repository of the model hub, ORGANISATION/NAME.")
    return Repository(name, revision or None)
