"""What passwords, tokens and keys look like, so that a recipe with one is refused."""

from __future__ import annotations

import re
from typing import Any

SECRET = re.compile(
    r"://[^/@:]*:(?!\d+/)[^@]+@"  # a URL with a password
    r"|\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|[?&](sig|[\w-]*(token|secret|password|signature|access_?key|api_?key)[\w-]*)=",
    re.IGNORECASE,
)
"""What passwords, tokens and keys look like in the places where users put them."""
WITHOUT_SECRETS = "give it through the environment (AWS_ACCESS_KEY_ID, HF_TOKEN, ...) or a profile on the machines"


def has_secret(value: Any) -> bool:
    """Whether a text, or one inside a list or mapping, looks like it holds a secret."""
    if isinstance(value, str):
        return SECRET.search(value) is not None
    if isinstance(value, dict):
        return any(map(has_secret, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_secret, value))
