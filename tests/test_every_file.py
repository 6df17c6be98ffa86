"""Every file of a workspace, damaged or swapped, under every verb that reads it: a line for its user, or the right results.

Which files there are, and which verb reads which, is found out by running the verbs on a whole workspace.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from aft_ray.cli import main
from aft_ray.commands.check import open_setup
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.search.search import read_winner
from aft_ray.search.trials import TrialDirectory, known_rows
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from tests.helpers.training import timeless
from tests.helpers.whole_workspace import whole_workspace

pytestmark = pytest.mark.slow

UNREAD = ("report", "tensorboard", "leases")
"""Directories of files that no verb reads results from."""
VARYING = r"(?<=-)([0-9a-f]{8}(?=\.)|[0-9a-f]{4}(?=/))|\d+|main-cut|main|second|train|validation|test|one|two"
"""Parts of paths that files of one kind differ in."""
KINDS = 40
"""At least as many kinds of files are found."""


def status(*arguments: str) -> int:
    return main([*arguments])


def of_function(read: Callable[[], Any]) -> int:
    """The status that the command line gives, for work that otherwise needs a cluster."""
    try:
        read()
    except InputError:
        return 2
    return 0


def read_search(recipe: Path) -> None:
    """What `search` reads before it runs a trial, and `pipeline` after it."""
    given = load(recipe)
    open_setup(given, "search")
    place = Workspace.at(given.workspace).search("main")
    known_rows(place / "trials", (place / "trials").folders(), None)
    for name in (place / "trials").folders():
        assert TrialDirectory(place / "trials" / name).inputs()
    read_winner(place)


def outputs(work: Path, *patterns: str) -> dict[str, bytes]:
    found = {path for pattern in patterns for path in work.glob(pattern) if path.is_file()}
    return {str(path.relative_to(work)): path.read_bytes() for path in sorted(found)}


def trained(work: Path) -> Any:
    lines = (work / "runs" / "main-cut" / "metrics.jsonl").read_text().splitlines()
    return timeless([json.loads(line) for line in lines])


def predicted(work: Path) -> Any:
    place = work / "predictions" / "main"
    files = json.loads((place / "predictions.json").read_text())["files"]
    return [row for name in files for row in pq.read_table(place / name).to_pylist()]


VERBS: dict[str, tuple[Callable[[Path], int], Callable[[Path], Any]]] = {
    "report": (lambda r: status("report", str(r)), lambda work: outputs(work, "report/*")),
    "evaluate": (
        lambda r: status("evaluate", str(r)),
        lambda work: outputs(work, "runs/main/evaluation-test.json", "runs/main/predictions-test.parquet"),
    ),
    "export": (lambda r: status("export", str(r)), lambda work: outputs(work, "runs/main/export/*")),
    "predict": (lambda r: status("predict", str(r), str(r.parent / "photos")), predicted),
    "rank": (lambda r: status("rank", str(r)), lambda work: outputs(work, "rank.json")),
    "extract": (lambda r: of_function(lambda: extract(load(r))), lambda work: outputs(work, "features/**/*")),
    "train": (lambda r: status("train", str(r)), lambda work: outputs(work, "runs/main/metrics.jsonl")),
    "train on": (lambda r: status("train", str(r), "run=main-cut"), trained),
    "search": (lambda r: of_function(lambda: read_search(r)), lambda work: None),
}
"""How each verb is run with a recipe, and its results in a workspace."""


@contextmanager
def reads() -> Iterator[set[str]]:
    """The paths that are read inside."""
    found: set[str] = set()
    check = Directory._check_is_file

    def noted(self: Directory, name: str) -> None:
        found.add(f"{self.path}/{name}")
        check(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Directory, "_check_is_file", noted)
        yield found


class Whole:
    """An undamaged workspace, its results, and who reads which file."""

    def __init__(self, place: Path) -> None:
        self.recipe = whole_workspace(place)
        self.work = place / "work"
        self.results: dict[str, Any] = {}
        self.readers: dict[str, list[str]] = {}
        for verb, (run, results) in VERBS.items():
            copy = self.copy(place / verb.replace(" ", "-"))
            with reads() as found:
                assert run(copy) == 0, verb
            self.results[verb] = results(copy.parent / "work")
            for path in found:
                if Path(path).is_relative_to(copy.parent / "work"):
                    self.readers.setdefault(str(Path(path).relative_to(copy.parent / "work")), []).append(verb)

    def copy(self, place: Path) -> Path:
        """A copy of the workspace below `place`; returns its recipe."""
        shutil.copytree(self.work, place / "work")
        text = self.recipe.read_text().replace(str(self.work), str(place / "work"))
        (place / "recipe.yaml").write_text(text)
        (place / "photos").mkdir()
        Image.new("RGB", (9, 9)).save(place / "photos" / "a.png")
        return place / "recipe.yaml"

    def files(self) -> dict[str, list[str]]:
        """The files of each kind: of one place and name, but for numbers and the names of runs, searches and splits."""
        found: dict[str, list[str]] = {}
        for path in sorted(path for path in self.work.rglob("*") if path.is_file()):
            name = str(path.relative_to(self.work))
            if not set(UNREAD) & set(name.split("/")) and ("/" in name or path.suffix != ".safetensors"):
                found.setdefault(re.sub(VARYING, "#", name), []).append(name)
        return found  # without the weights of the teachers, which the test's own recipe put there


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def wrong_type(path: Path) -> bytes:
    """Something whole that another program might have written under this name."""
    sink = io.BytesIO()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": ["a", "b"]}), sink)
    elif path.suffix == ".safetensors":
        return safetensors.torch.save({"weight": torch.zeros(2)})
    elif path.suffix == ".pt":
        torch.save([1, 2], sink)
    return sink.getvalue() or {".json": b'["a"]', ".jsonl": b"3\n", ".yaml": b"- a\n"}.get(
        path.suffix, b"of another kind"
    )


DAMAGES: dict[str, Callable[[Path, list[Path]], bytes | None]] = {
    "truncated": lambda path, others: path.read_bytes()[: path.stat().st_size // 2],
    "emptied": lambda path, others: b"",
    "of the wrong type": lambda path, others: wrong_type(path),
    "swapped": lambda path, others: next(
        (other.read_bytes() for other in others if other.read_bytes() != path.read_bytes()), None
    ),
}
"""The new content of a file, given the others of its kind; None where there is none."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_in_lines_or_does_not_matter(
    damage: str, whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = whole.files()
    assert len(kinds) >= KINDS, sorted(kinds)
    faults: list[str] = []
    for kind, names in kinds.items():
        name = next((name for name in names if name in whole.readers), names[0])
        content = DAMAGES[damage](whole.work / name, [whole.work / other for other in names if other != name])
        if content is None:
            continue
        for verb in whole.readers.get(name, []):
            run, results = VERBS[verb]
            recipe = whole.copy(tmp_path / f"{len(faults)}-{kind.replace('/', '_')}-{verb}")
            (recipe.parent / "work" / name).write_bytes(content)
            capsys.readouterr()
            try:
                code = run(recipe)
            except BaseException as error:  # noqa: BLE001
                faults.append(f"{verb}, {name} {damage}: {type(error).__name__}: {str(error)[:200]}")
                continue
            said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aft-ray: ")]
            if code not in (0, 2) or (code == 2 and verb not in ("extract", "search") and not said):
                faults.append(f"{verb}, {name} {damage}: status {code}, {said}")
            if code == 0 and results(recipe.parent / "work") != whole.results[verb]:
                faults.append(f"{verb}, {name} {damage}: another result")
            shutil.rmtree(recipe.parent)
    assert not faults, "\n".join(faults)


def rounds(names: list[str]) -> Iterator[list[str]]:
    """The files in few groups, with one file of each run, trial, search or directory of shards in a group."""
    left = list(names)
    while left:
        group = {owner(name): name for name in reversed(left)}
        yield list(group.values())
        left = [name for name in left if name not in group.values()]


def owner(name: str) -> str:
    depth = {"runs": 2, "predictions": 2, "samples": 2, "features": 3, "searches": 4 if "/trials/" in name else 2}
    parts = name.replace("rank.", "rank/").split("/")
    return "/".join(parts[: depth.get(parts[0], 1)])


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_tells_of_every_damaged_file(
    damage: str, whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = whole.copy(tmp_path).parent / "work"
    assert main(["verify", str(work)]) == 0
    new: dict[str, bytes] = {}
    for first, *others in whole.files().values():
        content = DAMAGES[damage](work / first, [work / name for name in others])
        if content is not None:
            new[first] = content
    silent = []
    for group in rounds(list(new)):
        before = {name: (work / name).read_bytes() for name in group}
        for name in group:
            (work / name).write_bytes(new[name])
        capsys.readouterr()
        assert main(["verify", str(work)]) == 1
        said = capsys.readouterr().err
        silent += [name for name in group if not re.search(rf"{re.escape(f'{work}/{owner(name)}')}\b", said)]
        for name, content in before.items():
            (work / name).write_bytes(content)
    assert not silent
