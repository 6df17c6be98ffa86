"""Jobs on a cluster of two nodes, started and used as docs/cluster.md says; and what is found before they work."""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pyarrow.parquet as pq
import pytest
import requests
from ray.job_submission import JobStatus

from aft_ray.cli import main
from aft_ray.cluster import preflight, submit, upload
from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.study.config import load_study
from tests.conftest import SMALL, SmallDemo
from tests.helpers import ROOT
from tests.helpers.jobs import Started, as_in_a_terminal, free_ports, started
from tests.study.test_config import written

DEMO = ROOT / "jobs" / "recipes" / "demo.yaml"
AFT_RAY = (sys.executable, "-m", "aft_ray.cli")


def test_what_travels_with_a_job_is_the_code_and_the_resolved_recipe(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    (directory / ".git").mkdir(parents=True)
    (directory / "work").mkdir()
    for name in ("teachers.py", "recipe.yaml", ".git/pack", "work/part.bin", "data.bin", "x.log"):
        (directory / name).write_text(name)
    (directory / ".gitignore").write_text("data.bin\n")
    recipe = load(DEMO, [f"workspace={directory}/work", "train.steps=7"])
    job = zipfile.ZipFile(submit.pack(submit.JobFile.of(recipe), directory, tmp_path))
    names = job.namelist()
    assert {name for name in names if not name.startswith("aft_ray/")} == {"teachers.py", "recipe.yaml"}
    assert "aft_ray/cli.py" in names and not any("__pycache__" in name for name in names)
    (tmp_path / "found.yaml").write_bytes(job.read("recipe.yaml"))
    assert load(tmp_path / "found.yaml") == recipe


def test_ignore_files_hold_below_their_directory_and_a_link_that_leads_round_is_followed_once(tmp_path: Path) -> None:
    for name in ("a/keep.py", "a/data/big.bin", "b/data/small.py", "elsewhere/linked.py", "venv/lib.py", "c.parquet"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(name)
    mine = (tmp_path / "mine" / "elsewhere").rename(tmp_path / "elsewhere").parent / "mine"
    (mine / "a" / ".gitignore").write_text("data/\n")
    (mine / "b" / ".rayignore").write_text("*.bin\n!small.py\n")
    (mine / "code").symlink_to(tmp_path / "elsewhere")
    (mine / "a" / "up").symlink_to(mine)
    assert list(upload.travelling(mine)) == ["a/keep.py", "b/data/small.py", "code/linked.py"]


def test_folders_that_link_to_each_other_do_not_travel_without_end(tmp_path: Path) -> None:
    for own, other in (("a", "b"), ("b", "a")):
        (tmp_path / own).mkdir()
        (tmp_path / own / "code.py").write_text(own)
        (tmp_path / own / "to").symlink_to(tmp_path / other)
    assert list(upload.travelling(tmp_path)) == ["a/code.py", "a/to/code.py", "b/code.py", "b/to/code.py"]


def test_a_file_s_encoding_does_not_depend_on_the_user_s_locale() -> None:
    """A job would find a recipe that is not UTF-8."""
    missing = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in (ROOT / "aft_ray").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("read_text", "write_text") and "encoding" not in {key.arg for key in node.keywords}
    ]
    assert missing == []


def test_an_ignore_file_may_have_names_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9.bin\ndata.bin\n")
    for name in ("data.bin", "code.py"):
        (tmp_path / name).write_text(name)
    assert list(upload.travelling(tmp_path)) == ["code.py"]


def test_modules_that_would_hide_python_s_own_in_a_job_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    for name in ("random.py", "queue/__init__.py", "code/mine.py", "lab/random.py", "random.txt", "types.py"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("")
    (directory / ".gitignore").write_text("types.py\n")
    with pytest.raises(InputError) as refused:
        submit.pack(submit.JobFile.of(load(DEMO)), directory, tmp_path)
    one, other = refused.value.faults
    assert one.startswith(f"{directory}/queue/__init__.py would hide Python's own") and "random.py would hide" in other
    assert not (tmp_path / "job.zip").exists()


def test_ray_s_job_server_takes_as_much_as_is_written_here() -> None:
    """Ray names this limit in no public place. Where this fails, correct LARGEST_UPLOAD, which follows it."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert upload.LARGEST_UPLOAD == DASHBOARD_CLIENT_MAX_SIZE


def test_an_upload_above_ray_s_limit_is_refused_before_anything_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    with (tmp_path / "mine" / "weights.bin").open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(
        InputError,
        match="The upload of .*mine would take 30. MiB, and Ray accepts 100. Submit from a directory that has",
    ):
        submit.pack(submit.JobFile.of(load(DEMO)), tmp_path / "mine", tmp_path)
    assert not (tmp_path / "job.zip").exists()


class GoneCluster:
    """A job server that takes a job and answers no further question."""

    def __init__(self, error: Exception, *, takes_jobs: bool) -> None:
        self.error, self.takes_jobs = error, takes_jobs

    def submit_job(self, **given: Any) -> str:
        if not self.takes_jobs:
            raise self.error
        return "raysubmit_1"

    def get_job_info(self, job: str) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [requests.ConnectionError("Connection refused"), RuntimeError("status code 500.")])
@pytest.mark.parametrize("takes_jobs", [True, False])
def test_a_cluster_that_is_gone_is_told_in_a_line(
    error: Exception,
    takes_jobs: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(submit, "GONE_AFTER_S", 0.1)
    monkeypatch.setattr(submit, "RECONNECT_S", 0.05)
    monkeypatch.setattr(submit, "connect", lambda address: GoneCluster(error, takes_jobs=takes_jobs))
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "train", str(DEMO), f"workspace={tmp_path}/work", "--address", "http://head:8265"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(error).rstrip(".") in line
    assert ("ray job logs raysubmit_1 --address http://head:8265" in line) == takes_jobs
    assert ("See whether the job started: ray job list" in line) != takes_jobs


def test_no_cluster_at_the_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["submit", "train", str(DEMO), "--address", f"http://127.0.0.1:{port}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"No Ray cluster takes jobs at http://127.0.0.1:{port}" in line


def test_a_recipe_is_checked_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "train", str(DEMO), "train.stepps=3", "workspace=s3://KEY:SECRET@bucket"]) == 2
    err = capsys.readouterr().err
    assert "Unknown key 'train.stepps'" in err and "workspace must not hold a secret" in err and "SECRET" not in err


class TakingCluster:
    """A job server that remembers the job that it takes, with the file that travels, and says that it has ended."""

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
        self.entrypoint, self.metadata = entrypoint, metadata
        self.file = zipfile.ZipFile(runtime_env["working_dir"]).read("recipe.yaml").decode()
        return "raysubmit_1"


def test_a_study_travels_whole_with_the_changes_of_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = TakingCluster()
    monkeypatch.setattr(submit, "connect", lambda address: cluster)
    monkeypatch.setattr(submit, "follow", lambda client, job, show: 0)
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, ("digits: {}", "digits: {base: base.yaml}"))
    (tmp_path / "base.yaml").write_text("workspace: w\ntrain: {steps: 11}\n")
    given = ["submit", "study", str(path), "train.seed=7", "run=other", "--only", "digits-all"]
    assert main(given) == 0
    assert cluster.entrypoint == "python -m aft_ray.cli study recipe.yaml train.seed=7 --only digits-all"
    assert cluster.metadata["run"] == "other" and cluster.metadata["workspace"] == f"{tmp_path}/place"
    (tmp_path / "base.yaml").unlink()
    (tmp_path / "arrived.yaml").write_text(cluster.file)
    recipe = load_study(tmp_path / "arrived.yaml", ["train.seed=7"]).settings["digits-all"]
    assert (recipe.train.steps, recipe.train.seed, recipe.run) == (11, 7, "other.digits-all")
    (tmp_path / "base.yaml").write_text("workspace: w\n")
    assert main([*given[:4], "records=docs/results"]) == 2
    assert "records 'docs/results' would lie in the job's own directory" in capsys.readouterr().err


class EndingCluster(TakingCluster):
    """A job server whose job ends at once. ctrl_c: SIGINT arrives when the connection is closed for that reason."""

    def __init__(self, status: JobStatus, exit_code: int | None, ctrl_c: Exception | None = None) -> None:
        self.details = SimpleNamespace(status=status, driver_exit_code=exit_code)
        self.ctrl_c = ctrl_c
        self.answers = [SimpleNamespace(status=JobStatus.RUNNING)]

    def get_job_info(self, job: str) -> Any:
        return self.answers.pop() if self.answers else self.details

    def get_job_logs(self, job: str) -> str:
        return "first\nlast\n"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "first\n"
        if self.ctrl_c:
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                raise self.ctrl_c


@pytest.fixture
def terminal() -> Iterator[None]:
    """Ctrl-C counts, also where the tests are a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [aiohttp.ClientError("closed"), RuntimeError("WebSocket connection closed")])
def test_ctrl_c_in_the_moment_in_which_the_job_ends_is_not_lost(
    error: Exception,
    terminal: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = EndingCluster(JobStatus.FAILED, 2, ctrl_c=error)
    monkeypatch.setattr(submit, "connect", lambda address: cluster)
    monkeypatch.setattr(submit, "RECONNECT_S", 0.01)
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "train", str(DEMO), f"workspace={tmp_path}/work", "--address", "http://head:8265"]) == 1
    said = capsys.readouterr()
    assert "stop it: ray job stop raysubmit_1 --address http://head:8265" in said.err and "ended with" not in said.out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("job", "exit_code", "status"),
    [(JobStatus.SUCCEEDED, 0, 0), (JobStatus.FAILED, 2, 2), (JobStatus.FAILED, 1, 1), (JobStatus.STOPPED, None, 1)],
)
def test_following_returns_the_job_s_status_and_shows_its_log_once(
    job: JobStatus, exit_code: int | None, status: int
) -> None:
    shown: list[str] = []
    cluster: Any = EndingCluster(job, exit_code)
    assert submit.follow(cluster, "raysubmit_1", shown.append) == status
    assert "".join(shown) == "first\nlast\n"


class Unshared(Workspace):
    """A directory that is another one on every machine but the driver's."""

    def __truediv__(self, name: str) -> Unshared:
        return Unshared(self.filesystem, f"{self.path}/{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Workspace.at, (f"{self.path}-elsewhere",)


@pytest.mark.ray
def test_nodes_that_differ_or_do_not_see_the_workspace_are_named(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.at(tmp_path / "work")
    assert preflight.node_faults(workspace) == [] and workspace.names() == []
    assert preflight.node_faults(Workspace.at(tmp_path)) == []
    unshared = Unshared(workspace.filesystem, workspace.path)
    (fault,) = preflight.node_faults(unshared)
    assert re.match(r"Node \S+ \(\w{8}\) does not share the workspace .*/work: it sees another directory\.", fault)
    ours = preflight.versions()
    monkeypatch.setattr(preflight, "versions", lambda: ours | {"torch": "1.0"})
    (fault,) = preflight.node_faults(workspace)
    assert f"has torch {ours['torch']}, not 1.0. Install the same versions everywhere." in fault


def test_old_directories_of_killed_checks_are_deleted_unless_they_hold_something(tmp_path: Path) -> None:
    for name in (".preflight-0123abcd", ".preflight-89abcdef", ".preflight-11111111", ".preflight-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "driver").touch()
        if name != ".preflight-11111111":
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".preflight-89abcdef" / "driver").write_text("data")
    os.utime(tmp_path / ".preflight-89abcdef", (0, 0))
    preflight._delete_left_overs(Workspace.at(tmp_path))
    assert Workspace.at(tmp_path).names() == [".preflight-11111111", ".preflight-89abcdef", ".preflight-mine"]


@pytest.mark.ray
def test_gpus_that_are_not_there_are_named_before_work_starts(cluster: None) -> None:
    given = load(DEMO, ["train.use_gpu=true", "train.num_workers=3"])
    assert preflight.wanted(given, "train") == [{"CPU": 1, "GPU": 1}] * 3 + [{"CPU": 1}]
    with pytest.raises(
        InputError,
        match="3 GPUs are asked for, the cluster has 0 after 0 s. .*resources.wait_s",
    ):
        preflight.preflight(given, "pipeline")


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    place = tmp_path_factory.mktemp("nodes")
    with started(place, "--num-cpus=3", nodes={"gpu": ("--num-cpus=1", "--num-gpus=2")}) as cluster:
        yield cluster


def checksums(workspace: Path) -> dict[str, list[str]]:
    stores = Workspace.at(workspace).stores()
    return {
        "/".join(store.path.split("/")[-2:]): [s["sha256"] for s in (store.manifest() or {})["shards"]]
        for store in stores
    }


def table(workspace: Path) -> list[dict[str, Any]]:
    path = workspace / "searches" / "main" / "trials.parquet"
    return pq.read_table(path).drop_columns(["wall_time_s"]).to_pylist()


def documented_commands() -> list[str]:
    block = (ROOT / "docs" / "cluster.md").read_text().partition("```\n")[2].partition("```")[0]
    return [line.partition(" # ")[0].strip() for line in block.splitlines()]


@pytest.mark.ray
@pytest.mark.processes
def test_the_cluster_page_s_commands_give_the_results_of_running_directly(
    small_demo: SmallDemo, two_nodes: Started, tmp_path: Path
) -> None:
    """Its commands as they stand there, but for ports, the machine's name and where the workspace lies."""
    here = {"HEAD:6379": two_nodes.address, "http://127.0.0.1:8265": two_nodes.dashboard}
    here |= {" recipe.yaml": f" {DEMO}", "/shared": str(tmp_path), "s3://bucket/pets": f"{tmp_path}/demo"}
    ran = []
    for command in documented_commands():
        for name, value in here.items():
            command = command.replace(name, value)
        words = command.split()
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            assert two_nodes.environment[name] == value
        elif words[:2] not in (["ray", "start"], ["ray", "get-auth-token"]):  # the fixture's own first commands
            done = two_nodes.run("bash", "-c", f"{command} {shlex.join(SMALL)}")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Methods compared" in done.stdout
            assert ("finals: " in done.stdout + done.stderr) == (words[0] == "ray"), "trials are run once"
        ran.append(words[0])
    assert ran == ["export", "ray", "ray", "export", "ray", "aft-ray", f"RAY_ADDRESS={two_nodes.address}"]
    assert checksums(tmp_path / "demo") == checksums(small_demo.workspace) != {}
    assert table(tmp_path / "demo") == table(small_demo.workspace) != []


@pytest.mark.ray
@pytest.mark.processes
def test_a_submitted_job_has_the_command_s_log_and_status_and_outlives_who_follows_it(
    two_nodes: Started, tmp_path: Path, image_folder: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    dataset = f"{{source: image_folder, path: {image_folder}, samples_per_shard: 10}}"
    recipe.write_text(f"workspace: {tmp_path / 'work'}\ndataset: {dataset}\nstudent: {{model: 'tiny:cnn'}}\n")
    address = ("--address", two_nodes.dashboard)
    done = two_nodes.run(*AFT_RAY, "submit", "prepare", str(recipe), *address, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"prepare: (\d+)/\1 shards", done.stdout)
    assert f"results are in {tmp_path}/work" in done.stdout and done.stderr == ""
    assert Workspace.at(tmp_path / "work").samples("train").manifest()

    failed = two_nodes.run(*AFT_RAY, "submit", "extract", str(recipe), "regularizer.beta=2", *address, cwd=tmp_path)
    assert failed.returncode == 2 and "The recipe names no teachers" in failed.stdout
    listed = two_nodes.run("ray", "job", "list").stdout
    for fact in ("'verb': 'extract'", f"'workspace': '{tmp_path / 'work'}'", "'run': 'main'", "driver_exit_code=2"):
        assert fact in listed, listed

    asked = ("regularizer.name=none", "train.use_gpu=true", "train.num_workers=9", "resources.wait_s=600")
    following = subprocess.Popen(
        [*AFT_RAY, "submit", "train", str(recipe), *asked, *address],
        env=two_nodes.environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    assert following.stdout is not None and following.stderr is not None
    job = following.stdout.readline().split()[1]
    assert any("nodes: waiting for 9 GPUs and 10 CPUs, the cluster has" in line for line in following.stdout)
    following.send_signal(signal.SIGINT)
    said = following.stderr.read()
    assert following.wait(60) == 1 and f"ray job stop {job} --address {two_nodes.dashboard}" in said
    assert "RUNNING" in two_nodes.run("ray", "job", "status", job).stdout
    assert two_nodes.run("ray", "job", "stop", job).returncode == 0
