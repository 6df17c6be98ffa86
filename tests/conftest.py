"""Shared by all tests: Ray's environment before anything imports ray, one small cluster, and tiny real data."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aft_ray.commands.environment import set_environment
from aft_ray.recipe.config import Recipe, load, override
from tests.helpers import DATA

set_environment()
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# For the S3 server of `s3`, which takes any; workers inherit them.
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")

SMALL = (
    "dataset.max_samples=300",
    "dataset.samples_per_shard=100",
    "train.steps=6",
    "train.evaluate_every=6",
    "train.global_batch_size=32",
    "train.num_workers=1",
    "search.compare=[none, aft]",
    "search.beta=[10]",
    "search.teachers=[[lite0, mobilenet]]",
    "search.final.seeds=1",
    "search.max_concurrent_trials=1",  # one process for all trials
)
"""What makes a demo small."""


@dataclass(frozen=True)
class SmallDemo:
    """workspace: what it wrote. done: its status and what it said."""

    workspace: Path
    done: subprocess.CompletedProcess[str]


STARTED = pytest.StashKey[bool]()
"""True in the session's stash while the cluster of all tests runs."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """One local cluster for the whole session: four logical CPUs, whatever the machine has."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    request.session.stash[STARTED] = True
    yield
    request.session.stash[STARTED] = False
    ray.shutdown()


@pytest.fixture(autouse=True)
def same_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test that ends the session's cluster fails, not those that come later and find a cluster of another size."""
    yield
    if request.session.stash.get(STARTED, False):
        import ray

        assert ray.is_initialized(), "this test ended the cluster that all tests share"


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> SmallDemo:
    """`aft-ray demo` with few samples and steps, as its user runs it: in an empty directory, with a cluster of its own."""
    place = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "aft_ray.cli", "demo", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, timeout=500)
    return SmallDemo(place / "work" / "demo", done)


@pytest.fixture(scope="session")
def extracted_once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The pictures of `image_folder` with the features of two small teachers."""
    from aft_ray.datasets.prepare import prepare
    from aft_ray.extraction.extract import extract
    from tests.helpers.extraction import recipe

    place = tmp_path_factory.mktemp("extracted")
    given = recipe(place, draw_pictures(place / "pictures"), "efficientnet", "resnet")
    prepare(given)
    extract(given)
    return given


@pytest.fixture
def extracted(extracted_once: Recipe, tmp_path: Path) -> Recipe:
    """A workspace with samples and the features of `efficientnet` and `resnet` that a test may change."""
    shutil.copytree(extracted_once.workspace, tmp_path / "work")
    return extracted_once.model_copy(update={"workspace": str(tmp_path / "work")})


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The query part of a URL that names an S3 server on this machine, which has the bucket `bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a command writes its log to this server
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1").create_bucket(Bucket="bucket")
    yield f"endpoint_override=127.0.0.1:{port}&scheme=http"
    server.stop()


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Sixty small pictures in two classes that a tiny student can tell apart: bright top, bright bottom."""
    return draw_pictures(tmp_path / "pictures")


def draw_pictures(root: Path) -> Path:
    """The same pictures at every call."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for label, name in enumerate(("bottom", "top")):
        (root / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.integers(0, 100, (36, 40, 3), dtype=np.uint8)
            half = slice(0, 18) if label else slice(18, 36)
            pixels[half] += 120
            Image.fromarray(pixels).save(root / name / f"{index:02d}.png")
    return root


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of a workspace that the code of 2026-11-27 wrote, in the working directory."""
    with tarfile.open(DATA / "workspace-2026-11-27.tar.gz") as stored:
        stored.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return override(load("recipe.yaml"), {"workspace": str(tmp_path / "work")})
