"""Texts and JSON of the user's own: whatever is wrong with them shows at once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


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
