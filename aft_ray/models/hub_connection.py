"""Whether the model hub can be reached, asked once: its client repeats a request for half a minute before it gives up."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit

TIMEOUT_S = 3.0
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def is_offline() -> bool:
    """Whether the user has set the hub's client offline; it then fails at once by itself."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("TRANSFORMERS_OFFLINE", "0") not in ("", "0")


@lru_cache(maxsize=1)
def answers() -> bool:
    """Whether the hub, or a proxy before it, takes a connection within a few seconds."""
    from huggingface_hub import constants

    proxy = next((found for name in PROXIES if (found := os.environ.get(name))), None)
    place = urlsplit(proxy or constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True
