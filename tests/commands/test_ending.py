"""The last lines of a verb name the next command, which can be copied as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aft_ray import cli
from aft_ray.commands.ending import show_next, show_places


def test_the_next_command_keeps_the_overrides_and_quotes_them(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = argparse.Namespace(recipe="my recipe.yaml", overrides=["train.steps=3", "run=old", "search.beta=[1, 2]"])
    show_next(parsed, "predict PATH", "export", run="new")
    assert capsys.readouterr().out.splitlines() == [
        "next      aft-ray predict 'my recipe.yaml' PATH train.steps=3 'search.beta=[1, 2]' run=new",
        "or        aft-ray export 'my recipe.yaml' train.steps=3 'search.beta=[1, 2]' run=new",
    ]


def test_places_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_places(samples="s3://bucket/samples", report="r.html")
    assert capsys.readouterr().out == "samples   s3://bucket/samples\nreport    r.html\n"


def test_prepare_and_train_end_with_the_next_commands(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"workspace: {tmp_path}/work\ndataset: {{source: image_folder, path: {image_folder}}}\n"
        "student: {model: 'tiny:cnn'}\nregularizer: {name: none}\ntrain: {steps: 2, global_batch_size: 8}\n"
    )
    assert cli.main(["prepare", str(path)]) == 0
    assert f"next      aft-ray train {path}" in capsys.readouterr().out
    assert cli.main(["train", str(path)]) == 0
    assert f"next      aft-ray evaluate {path}" in capsys.readouterr().out
