"""Passwords, tokens and keys: a recipe with one is refused, and all output is redacted.

A secret is recognised by the name of its key (`password`, `api_key`, ...) or by its form (`ghp_...`, a PEM block, a password
in a URL). Other secrets are not recognised.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "***"
WITHOUT_SECRETS = "give it through the environment (AWS_ACCESS_KEY_ID, HF_TOKEN, ...) or a profile on the machines"

_NAME = (
    r"(?:[\w.-]*[_.-])?(?:pass(?:word|wd|phrase)|pwd|secret|(?:api|access|account|private|secret|shared|auth|signing|storage"
    r"|encryption|master|subscription)[_.-]?key)s?"
    r"|(?:[\w.-]*[_.-])?(?:access|api|auth|bearer|deploy|github|gitlab|hf|hub|personal|refresh|sas|security|session|slack|wandb)"
    r"[_.-]?token"
    r"|token"
)
NAME = re.compile(_NAME, re.IGNORECASE)
"""Keys whose value is a secret. A model's own tokens (`pad_token`, `max_tokens`) are none."""
PLACEHOLDER = re.compile(r"\$\w+|\$\{\w+\}|" + re.escape(REDACTED))
"""Names a secret without being one."""

_SHAPES = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    r"\beyJ[\w-]{16,}(?:\.[\w-]+)*",  # a JSON Web Token
    r"\bsk-(?:proj|svcacct|admin|ant|or)-[\w-]{20,}|\b[sr]k-[A-Za-z0-9]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"\bxox[abeoprs]-[\w-]{10,}|https://hooks\.slack\.com/services/[\w/]+",
    r"\bgl(?:pat|dt|rt|ptt|cbt)-[\w.-]{16,}",
    r"\bgithub_pat_\w{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\bnpm_[A-Za-z0-9]{36}|\bpypi-[\w-]{50,}|\bdapi[0-9a-f]{32}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bdckr_pat_[\w-]{20,}",
)
BARE = re.compile("|".join(_SHAPES))
"""Secrets recognised by their own characters."""
MARKED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # user:password@ of a URL, but not host:port/path@revision
        r"(?P<keep>://[^/\s@:\[]*:)(?!\d+(?:/|\s|$))(?:[^\s/\"']+(?=@)|[^\s\"'@]+(?=@))",
        r"(?P<keep>[?&](?:sig|[\w-]*(?:token|secret|password|signature|access_?key|api_?key)[\w-]*)=)[^&\s\"']+",
        rf"(?P<keep>(?:^|[\s;,('\"])(?:{_NAME})=)(?!\$)[^\s;,&)'\"]+",
        rf"(?P<keep>(?P<quote>['\"])(?:{_NAME})(?P=quote)\s*:\s*(?P<other>['\"]))(?!\$)(?:(?!(?P=other)).)+",
        r"(?P<keep>\b(?:Bearer|Basic)\s+)(?=\S*\d)[\w.~+/-]{16,}=*",
    )
)
"""Secrets recognised by the characters before them, which are kept."""


def redacted(value: Any) -> Any:
    """`value` with `***` in the place of every secret in its texts, its lists and its mappings."""
    if isinstance(value, str):
        return _redacted_text(value)
    if isinstance(value, dict):
        return {key: REDACTED if _is_secret(key, item) else redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(redacted, value))
    return value


def has_secret(value: Any) -> bool:
    """Whether `redacted` would change the value."""
    return bool(redacted(value) != value)


def _redacted_text(text: str) -> str:
    text = BARE.sub(REDACTED, text)
    if "=" in text or ":" in text or "earer" in text or "asic" in text:
        for pattern in MARKED:
            text = pattern.sub(lambda match: match["keep"] + REDACTED, text)
    return text


def _is_secret(key: Any, value: Any) -> bool:
    if not isinstance(key, str) or not NAME.fullmatch(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)):
        return False
    if isinstance(value, str):
        return bool(value.strip()) and not PLACEHOLDER.fullmatch(value)
    return isinstance(value, int) and not isinstance(value, bool) and not key.lower().endswith("token")
