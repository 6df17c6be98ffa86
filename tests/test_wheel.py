"""The wheel in a venv outside the checkout: the command, `init` and every recipe of the package are whole there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from aft_ray.commands import verbs
from aft_ray.recipe.config import load_text
from tests.conftest import draw_pictures
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the built wheel, installed in `venv` beside the packages of this Python."""
    place = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(place)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True, timeout=120)
    venv.create(place / "venv", symlinks=True)
    (library,) = (place / "venv").glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(place / "venv" / "bin" / "python")]
    options = ["install", "--quiet", "--no-deps", "--no-index", *map(str, place.glob("*.whl"))]
    subprocess.run([*pip, *options], check=True, capture_output=True, timeout=120)
    others = [
        path for path in sys.path if path.endswith("-packages")
    ]  # a .pth inside, of an editable checkout, is not read
    (library / "others.pth").write_text("\n".join(others))
    return place


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = [str(place / "venv" / "bin" / command[0]), *command[1:]]
    return subprocess.run(path, capture_output=True, text=True, cwd=place, env=environment, timeout=200)


def test_the_wheel_holds_what_is_read_at_run_time(place: Path) -> None:
    (wheel,) = place.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT) for kind in ("*.j2", "*.json", "py.typed") for path in (ROOT / "aft_ray").rglob(kind)
    }
    assert {str(file) for file in files} <= inside
    recipes = {file.relative_to(ROOT / "jobs" / "recipes") for file in ROOT.glob("jobs/recipes/**/*.yaml")}
    wanted = {f"aft_ray/recipes/{file}" for file in recipes if file.parts[0] != "results"}
    assert wanted == {name for name in inside if name.startswith("aft_ray/recipes/")}
    assert not [name for name in inside if name.startswith(("tests/", "jobs/", "docs/"))]


@pytest.mark.processes
def test_the_installed_command_writes_a_recipe_that_loads(place: Path) -> None:
    draw_pictures(place / "pictures")
    told = run(place, "aft-ray", "--help")
    assert told.returncode == 0 and all(verb in told.stdout for verb in verbs()), told.stderr
    made = run(place, "aft-ray", "init", "pictures")
    assert made.returncode == 0, made.stderr
    schema = re.search(r"\$schema=(.*)", made.stdout)
    assert schema and place in Path(schema[1]).parents and Path(schema[1]).is_file()
    load_text(made.stdout)


@pytest.mark.processes
def test_every_recipe_of_the_package_loads_where_it_is_installed(place: Path) -> None:
    code = """
from pathlib import Path
import aft_ray
from aft_ray.commands.demo import demo_recipe
from aft_ray.study.config import load_study
folder = Path(aft_ray.__file__).parent / "recipes"
assert demo_recipe() == folder / "demo.yaml"
files = [*folder.glob("*.yaml"), *folder.glob("paper/*.yaml")]
print(len([(load_study if "settings:" in file.read_text() else aft_ray.load)(file) for file in files]))
"""
    done = run(place, "python", "-c", code)
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr
