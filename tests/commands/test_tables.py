"""What the command line prints of names: as they are spelt, whatever they hold and whatever stdout can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from aft_ray.commands.tables import console, print_table
from tests.helpers import ROOT


def test_names_are_no_markup_and_no_commands_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("of \x1b[31m[red]", ["[bold]", "n"], [["\x1b[8mhidden\n", ":smile: [/x]"]])
    console.print("report: /data/[red]/\x1b[2J", soft_wrap=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "of \\x1b[31m[red]" in out and "[bold]" in out
    assert "\\x1b[8mhidden\\n" in out and ":smile: [/x]" in out
    assert "report: /data/[red]/\\x1b[2J" in out


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_terminal_of_any_width_shows_every_name_and_number_whole(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", width)
    rows = [["main-aft_probe-beta20-lite0_mobilenet_lite2", "96.70", "2026-11-28 11:52", "x" * 12, "a longer " * 8]]
    print_table("Runs", ["run", "validation %", "written", "state", "remark"], rows)
    shown = capsys.readouterr().out
    assert all(text in shown for text in (*rows[0][:4], "validation %", "written"))
    assert ("┃" in shown) == (width >= 120)


@pytest.mark.processes
def test_a_class_that_stdout_cannot_show_is_shown_as_an_escape(tmp_path: Path) -> None:
    for name in ("caf\u00e9", "tea"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pictures" / name / f"{number}.png")
    dataset = {"source": "image_folder", "path": str(tmp_path / "pictures")}
    recipe = {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "aft_ray.cli", "prepare", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9" in done.stdout
