"""A hook of MkDocs: pages above docs/ join the site, and links to code, which is not on it, become plain names."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ABOVE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages above docs/, and their names on the site."""
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")
ON_SITE = (".md", ".png", ".svg")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in ABOVE.items():
        files.append(File.generated(config, name, content=_from_docs((ROOT / source).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links that leave docs/ lead to that page on the site; links to code and records, which are not there, become names."""

    def put(link: re.Match[str]) -> str:
        image, name, path, anchor = link.groups()
        if path.startswith("../"):
            return f"[{name}]({ABOVE[path[3:]]}{anchor or ''})" if path[3:] in ABOVE else name
        return link[0] if path.endswith(ON_SITE) else name

    return LINK.sub(put, markdown)


def _from_docs(text: str) -> str:
    """The text of a page above docs/ with links as a page in docs/ has them."""

    def put(link: re.Match[str]) -> str:
        image, name, path, anchor = link.groups()
        moved = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        return f"{image}[{name}]({moved}{anchor or ''})"

    return LINK.sub(put, text)
