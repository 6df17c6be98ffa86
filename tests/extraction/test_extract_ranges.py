"""Processes without a common cluster divide an extraction: together they leave the store that one process leaves.

Ray Data is replaced, in each process, by a loop over the same stages.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aft_ray.cli import main
from aft_ray.cluster.ranges import Range
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract, extract_range
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.workspace import Workspace
from jobs.benchmarks.fuzz_without_ray import without_ray
from tests.conftest import draw_pictures
from tests.helpers import ROOT
from tests.helpers.own_teachers import calls

COMMAND = """
import sys
from aft_ray.cli import main
from jobs.benchmarks.fuzz_without_ray import without_ray

with without_ray():
    sys.exit(main(["extract", *sys.argv[1:]]))
"""


def recipe(place: Path, pictures: Path) -> Recipe:
    model = {"model": "tests.helpers.own_teachers:Means", "options": {"log": str(place / "log")}}
    return Recipe.model_validate(
        {
            "workspace": str(place / "work"),
            "dataset": {"source": "image_folder", "path": str(pictures), "samples_per_shard": 4},
            "teachers": [
                {"name": name, "batch_size": 3 + number, **model} for number, name in enumerate(("one", "two"))
            ],
            "student": {"model": "tiny:cnn"},
        }
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """What `extract` leaves; no test changes it."""
    place = tmp_path_factory.mktemp("whole")
    given = recipe(place, draw_pictures(place / "pictures"))
    prepare(given)
    with without_ray():
        extract(given)
    return given


@pytest.fixture
def given(whole: Recipe, tmp_path: Path) -> Recipe:
    """The same samples without features."""
    shutil.copytree(Path(whole.workspace, "samples"), tmp_path / "work" / "samples")
    return recipe(tmp_path, Path(whole.dataset.path or ""))


def with_teachers(given: Recipe, **changes: object) -> Recipe:
    return override(given, {"teachers": [{**t.model_dump(mode="json"), **changes} for t in given.teachers]})


def features(given: Recipe) -> dict[str, bytes]:
    root = Path(given.workspace, "features")
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def start(given: Recipe, *arguments: str) -> subprocess.Popen[str]:
    path = Path(given.workspace).with_suffix(".yaml")
    path.write_text(dump(given))
    command = [sys.executable, "-c", COMMAND, str(path), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def killed_at_work(given: Recipe, number: int) -> None:
    """Kills the process of a range in the middle: it has written shards, and has others to write."""
    slow = with_teachers(given, options={**given.teachers[0].options, "pause_s": 0.5})
    process = start(slow, "--range", f"{number}/4")
    while len(calls(Path(given.teachers[0].options["log"]))) < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.processes
def test_four_processes_of_a_range_each_leave_the_store_of_one_also_if_one_is_killed_and_started_again(
    whole: Recipe, given: Recipe
) -> None:
    killed_at_work(given, 2)
    written = features(given)
    assert written and all(int(name[-13:-8]) % 4 == 2 for name in written), "only shards of the range"
    others = [start(given, "--range", f"{number}/4") for number in (0, 1, 3)]
    for process in others:
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert "two/train" in output and "shards of other ranges are still missing" in output
    found = features(given)
    assert written.items() <= found.items() and f"one/train/{MANIFEST}" not in found
    assert {f"one/train/.entries-{number}-of-4.json" for number in (0, 1, 3)} <= found.keys()

    with without_ray():
        extract_range(given, Range(2, 4))
    assert features(given) == features(whole)
    logs = [json.loads(Path(given.workspace, f"extract-{n}-of-4.jsonl").read_text().splitlines()[-1]) for n in range(4)]
    assert all(log["event"] == "end" for log in logs)
    assert main(["verify", given.workspace]) == 0


@pytest.mark.processes
def test_extract_without_a_range_finishes_what_ranges_have_left(whole: Recipe, given: Recipe) -> None:
    killed_at_work(given, 1)
    before = features(given)
    with without_ray():
        extract_range(given, Range(0, 4))
        made = extract(given)
    num_shards = sum(name.startswith("one/") and not name.endswith(MANIFEST) for name in features(whole))
    done = {name for name in features(given) if name.startswith("one/train/part") and int(name[-13:-8]) % 4 == 0}
    assert 0 < made["one"] < num_shards - len(done) and before
    assert features(given) == features(whole)


def test_the_limit_of_quarantined_samples_holds_over_all_ranges_together(given: Recipe, tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures")
    samples = Workspace.at(given.workspace).samples("train")
    for shard in range(3):
        picture = pictures / samples.read_shard(shard).column("sample_id")[1].as_py()
        picture.write_bytes(picture.read_bytes()[:-500])
    shutil.rmtree(given.workspace)
    given = override(given, {"dataset.path": str(pictures), "dataset.max_bad_samples": 2})
    prepare(given)
    with without_ray():
        for number in (3, 2, 1):
            extract_range(given, Range(number, 4))
        with pytest.raises(InputError, match="3 samples quarantined, 2 allowed"):
            extract_range(given, Range(0, 4))
        assert f"one/train/{MANIFEST}" not in features(given)
        extract_range(override(given, {"dataset.max_bad_samples": 3}), Range(0, 4))
    manifest = Workspace.at(given.workspace).features("one", "train").manifest() or {}
    assert len(manifest["quarantined"]) == 3


def test_ranges_with_other_settings_are_found_out_before_a_manifest_is_written(given: Recipe) -> None:
    with without_ray():
        extract_range(with_teachers(given, features_dtype="float32"), Range(3, 4))
        extract_range(given, Range(0, 4))
        extract_range(given, Range(1, 4))
        with pytest.raises(InputError, match="one/train: features_dtype is 'float32' on disk, 'float16' in this run"):
            extract_range(given, Range(2, 4))
    assert f"one/train/{MANIFEST}" not in features(given)


def test_a_file_of_somebody_else_with_the_name_of_a_range_s_note_is_named_before_the_work(given: Recipe) -> None:
    other = Path(given.workspace, "features", "one", "train", ".entries-1-of-4.json")
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(InputError, match=".entries-1-of-4.json was not written by 'aft-ray extract'. Move it away."):
        extract_range(given, Range(1, 4))
    assert list(features(given).values()) == [b"mine"]


def test_overwrite_with_a_range_is_refused_together_with_a_wrong_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", str(tmp_path / "recipe.yaml"), "--range", "4/4", "--overwrite"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "aft-ray: --range is '4/4'; 4 ranges are 0/4 to 3/4, counted from 0 as in 'sbatch --array=0-3'."
    assert second.startswith("aft-ray: --overwrite would delete what other ranges compute.")
