"""docs/trust.md names a test for each kind of trouble, and each of them exists."""

from __future__ import annotations

import re

from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_each_test_that_the_page_names_exists() -> None:
    named = set(NAMED.findall(PAGE))
    sources = {path: ROOT / "tests" / path for path, _ in named}
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not sources[path].is_file() or f"def {name}(" not in sources[path].read_text(encoding="utf-8")
    ]
    assert missing == []


def test_each_kind_of_the_page_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [A-E]\d", line)]
    assert [row for row in rows if not NAMED.search(row)] == []
    assert {int(row[3:].split()[0]) for row in rows} == set(range(1, 24))
