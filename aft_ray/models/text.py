"""Turns a text into a student's token ids: an array of fixed length, padded on the right.

Threads of the trainer and light CPU processes run this module, so it does not import torch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar, Protocol

import numpy as np

PADDING = -1
"""Fills an array of ids after the text's end. No vocabulary has this id, so the mask is exact."""

WORD = re.compile(r"\w+|[^\w\s]")


class TextTransform(Protocol):
    """Turns a text into a student's input."""

    @property
    def column(self) -> str: ...

    def __call__(self, text: str) -> np.ndarray:
        """(L,) int32 ids, of the same length for all texts."""
        ...


@dataclass(frozen=True)
class HashedWords:
    """Words and punctuation marks in lower case, numbered by their CRC-32: no vocabulary, the same ids everywhere.

    length: words to read. buckets: number of ids; words with the same id are the same word to the model.
    """

    column: ClassVar[str] = "text"

    length: int
    buckets: int

    def __call__(self, text: str) -> np.ndarray:
        words = WORD.findall(text.lower())[: self.length]
        return padded([zlib.crc32(word.encode()) % self.buckets for word in words], self.length)


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of a transformers checkpoint, with its special tokens.

    place, revision: the checkpoint. length: tokens to read. digest: identifies the tokenizer's files.
    """

    column: ClassVar[str] = "text"

    place: str
    revision: str | None
    length: int
    digest: str

    def __call__(self, text: str) -> np.ndarray:
        tokenizer, nothing = _tokenizer(self.place, self.revision, self.length)
        if tokenizer.is_fast:
            ids = tokenizer.backend_tokenizer.encode(text).ids
        else:
            ids = tokenizer(text, truncation=True, max_length=self.length)["input_ids"]
        return padded(ids or [nothing], self.length)


def padded(ids: Sequence[int], length: int) -> np.ndarray:
    row = np.full(length, PADDING, np.int32)
    row[: len(ids)] = ids
    return row


_ONE_AT_A_TIME = Lock()


def _tokenizer(place: str, revision: str | None, length: int) -> tuple[Any, int]:
    """The tokenizer, loaded once. Threads that import transformers at the same time may find only half of it."""
    with _ONE_AT_A_TIME:
        return _loaded_tokenizer(place, revision, length)


@lru_cache(maxsize=8)
def _loaded_tokenizer(place: str, revision: str | None, length: int) -> tuple[Any, int]:
    """The tokenizer, and the id for a text without tokens.

    Truncation is set here, once: calling the tokenizer sets it for every text, which is not safe in threads.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.enable_truncation(length, direction=tokenizer.truncation_side)
        tokenizer.backend_tokenizer.no_padding()
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return tokenizer, next(token for token in candidates if token is not None)
