"""Texts and JSON of the user's own: whatever is wrong with them shows at once."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from typing import Any

HEAD_BYTES = 4096
"""Of a text file, to find its encoding."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The first bytes of a text that name its encoding. UTF-32's begin as UTF-16's do, so the order counts."""


def encoding_of(head: bytes) -> str:
    """The encoding of a text by its first bytes: the one that its mark names, else UTF-8.

    Raises UnicodeError if it is neither: without a mark, UTF-16 would be read as letters with NUL characters between.
    """
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    if marked is None and 4 * head.count(0) > len(head):
        raise UnicodeError("it has NUL characters, as UTF-16 without a mark has. Save it as UTF-8")
    return marked or "utf-8"


def decode_text(content: bytes) -> str:
    """A text file's content without the mark of its encoding. Raises UnicodeError with the way out if it is no text."""
    try:
        return content.decode(encoding_of(content[:HEAD_BYTES]))
    except UnicodeDecodeError as error:
        raise UnicodeError(told_undecodable(error)) from error


def told_undecodable(error: UnicodeDecodeError) -> str:
    byte = bytes(error.object[error.start : error.start + 1]).hex()
    return f"byte 0x{byte} is no {error.encoding.upper()} text. Save it as UTF-8"


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for a key that is there twice and for endless nesting."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"its key {twice!r} is there twice")
    return found


def is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, as in file names and JSON that are damaged."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
