"""The pages: every command parses, every piece of a recipe loads, every key exists, and the site builds."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from aft_ray import cli
from aft_ray.commands.keys import find
from aft_ray.recipe.config import load_content
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.reference import recipe_keys
from aft_ray.study.config import load_study
from tests.helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = ("CONTRIBUTING.md", "results.md", "recipe.md", "log.md")
"""Generated pages, the log with its commands of earlier days, and CONTRIBUTING, which `test_contributing` runs."""
WRITTEN = [page for page in PAGES if page.name not in ELSEWHERE]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
REST: dict[str, Any] = {
    "workspace": "work/rest",
    "dataset": {"name": "mnist5k"},
    "teachers": [{"name": "clip", "model": "timm:resnet18"}],
    "student": {"model": "tiny:cnn"},
}
"""Keys that a piece of a recipe leaves out."""
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*aft-ray (.*?)(?:\s+#.*)?$")
KEY = re.compile(
    r"`((?:dataset|teachers|student|regularizer|train|search|resources)(?:\[\])?(?:\.(?!json)\w+)+)(?:[:=][^`]*)?`"
)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    return (text for language, text in BLOCK.findall(page.read_text("utf-8")) if language in languages)


@cache
def commands(page: Path) -> list[str]:
    """Lines of blocks, and text between backticks that has more than a verb."""
    text = page.read_text("utf-8")
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    inline = re.findall(r"`(aft-ray [a-z]+ [^`]+)`", BLOCK.sub("", text))
    return [found[1] for line in (*lines, *inline) if (found := COMMAND.match(line.strip()))]


def words(command: str) -> list[str]:
    """The arguments, without the redirection of a shell; of alternatives the first."""
    plain = re.sub(r"\[\w+\|\w+\]", "train", command)
    given = [re.sub(r"\|.*", "", word) for word in shlex.split(re.sub(r"\s+>.*| \.\.\.$", "", plain))]
    return [re.sub(r"^VERB$", "train", word) for word in given]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_command_of_a_page_parses_and_its_changes_fit_a_recipe(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = []
    for command in commands(page):
        try:
            parsed = cli._parser().parse_args(words(command))
        except SystemExit as stopped:
            if stopped.code:
                faults.append(f"{command}: {capsys.readouterr().err.splitlines()[-1]}")
            continue
        if parsed.verb in ("submit", "study") or command.startswith(WRONG):
            continue
        try:
            load_content(REST, getattr(parsed, "overrides", []))
        except InputError as error:
            faults += [f"{command}: {fault}" for fault in error.faults]
    assert not faults


WRONG = "train recipe.yaml regularizer.beta=-1 train.stepps=10"
"""A command that the guide shows with the faults that it is told."""


def test_the_faults_that_the_guide_shows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    shown = guide.partition(f"$ aft-ray {WRONG}\n")[2].partition("```")[0].splitlines()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(REST))
    assert cli.main(["train", str(recipe), *words(WRONG)[2:]]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(shown) == 2
    assert all(line.startswith(part.removesuffix("...")) for line, part in zip(told, shown, strict=True))


def test_the_pages_have_commands_and_recipes() -> None:
    assert sum(len(commands(page)) for page in WRITTEN) > 50
    assert sum(len(list(blocks(page, "yaml"))) for page in WRITTEN) > 10


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_recipe_of_a_page_loads(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "yaml"):
        content = yaml.safe_load(text)
        if content.get("teachers") == [...] or content.get("teachers") == ["..."]:
            content["teachers"] = REST["teachers"]
        if "settings" in content:
            (tmp_path / "study.yaml").write_text(yaml.safe_dump({**REST, **content}))
            load_study(tmp_path / "study.yaml")
        else:
            load_content({**REST, **content}, [])


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_key_that_a_page_names_exists(page: Path) -> None:
    keys = recipe_keys()
    for name in KEY.findall(page.read_text("utf-8")):
        known = name in METHODS_OWN or find(name, keys)
        assert known, name


METHODS_OWN = ("regularizer.raw_weight", "regularizer.normalize")
"""Options of single methods: `aft-ray keys regularizer` lists them, the models do not."""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_python_on_a_page_compiles_and_its_imports_exist(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aft_ray"):
                module = __import__(str(node.module), fromlist=["*"])
                assert all(hasattr(module, alias.name) for alias in node.names), text


def test_every_link_between_pages_leads_to_a_file() -> None:
    faults = []
    for page in PAGES:
        for path in re.findall(r"\]\((?!\w+:|#)([^)#]+)", BLOCK.sub("", page.read_text("utf-8"))):
            if not (page.parent / path).exists():
                faults.append(f"{page.name}: {path}")
    assert not faults


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    fetched = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="?(https?:)?//')
    assert len(pages) > 15 and not [page.name for page in pages if fetched.search(page.read_text("utf-8"))]
