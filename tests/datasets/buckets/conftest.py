from __future__ import annotations

import pytest

from tests.helpers.small_buckets import SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)
