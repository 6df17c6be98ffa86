"""What libraries say goes to a file that the terminal names once; our own warnings and all errors stay on the terminal."""

from __future__ import annotations

import argparse
import logging
import threading
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from aft_ray import cli
from aft_ray.commands import library_log
from aft_ray.commands.environment import load_recipe
from aft_ray.commands.library_log import LIBRARY_LOG, LibraryLog
from aft_ray.store.files import Directory


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"workspace: {tmp_path}/work\ndataset: {{name: mnist5k}}\nstudent: {{model: 'tiny:cnn'}}\nrun: a\n")
    return path


def noise(parsed: argparse.Namespace) -> None:
    load_recipe(parsed)
    logging.getLogger("PIL").warning("a chunk of https://me:hunter2@host")
    logging.getLogger("aft_ray.training").warning("ours")
    logging.getLogger("urllib3").error("a host is lost")
    warnings.warn("deprecated", FutureWarning, stacklevel=1)


def test_the_terminal_names_the_file_of_what_libraries_say(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("aft_ray.commands.report.run", noise)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["report", str(recipe)]) == 0
    place = recipe.parent / "work" / "logs" / "report-a.log"
    assert capsys.readouterr().err.splitlines() == [
        "WARNING aft_ray.training: ours",
        "ERROR urllib3: a host is lost",
        f"aft-ray: 2 warnings of libraries: {place}",
    ]
    kept = place.read_text()
    assert LIBRARY_LOG not in logging.getLogger().handlers, "pytest has handlers of its own"
    assert "PIL: a chunk of https://me:***@host" in kept and "FutureWarning: deprecated" in kept


def test_a_quiet_command_writes_and_names_no_file(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("aft_ray.commands.report.run", lambda parsed: load_recipe(parsed) and None)
    assert cli.main(["report", str(recipe)]) == 0
    assert capsys.readouterr().err == "" and not (recipe.parent / "work").exists()


def test_a_file_that_cannot_be_written_ends_no_command(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe.parent / "work").mkdir()
    (recipe.parent / "work" / "logs").write_text("a file in its place")
    monkeypatch.setattr("aft_ray.commands.report.run", noise)
    assert cli.main(["report", str(recipe)]) == 0
    assert "PIL: a chunk" in capsys.readouterr().err


class Slow(Directory):
    """A store that answers when `answers` is set."""

    asked, answers = threading.Event(), threading.Event()

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        self.asked.set()
        assert self.answers.wait(10)
        super().write(name, content)


def test_a_slow_store_holds_up_nobody_who_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_log, "WRITTEN_EVERY_S", 0.01)
    log, store = LibraryLog(), Slow(pafs.LocalFileSystem(), str(tmp_path))
    log.goes_to(store, "a.log")
    logger = logging.Logger("PIL")
    logger.addHandler(log)

    def speak() -> None:
        logger.warning("a")
        store.asked.wait(10)
        logger.warning("b")

    speaking = threading.Thread(target=speak)
    speaking.start()
    speaking.join(5)
    is_held_up = speaking.is_alive()
    store.answers.set()
    speaking.join()
    log.end()
    assert not is_held_up
    assert [line.rpartition(" ")[2] for line in (tmp_path / "a.log").read_text().splitlines()] == ["a", "b"]
