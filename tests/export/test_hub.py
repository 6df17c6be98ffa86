"""Exports go to a model hub and come back from it, through the hub's own client and a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

from aft_ray.commands.functions.verbs import export as export_verb
from aft_ray.export.export import export
from aft_ray.export.hub import check_push, push
from aft_ray.export.student import load_student
from aft_ray.models.hub_connection import answers
from aft_ray.recipe.errors import InputError
from tests.export.test_export import trained
from tests.helpers import ROOT, hub
from tests.helpers.hub_server import TOKEN, Hub, commit_id, hub_server
from tests.helpers.small_students import batch

NAME = "me/flowers"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        template = f"{started.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a binary protocol of the real hub
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        answers.cache_clear()
        yield started
    answers.cache_clear()


def test_a_student_that_was_pushed_is_loaded_from_its_repository(server: Hub, tmp_path: Path) -> None:
    recipe = trained("tiny:cnn", tmp_path)
    check_push(NAME)
    url = push(export(recipe, repository=NAME), NAME, public=False)
    assert url == f"{server.url}/{NAME}" and server.visibility[NAME] == "private"
    files = server.files(NAME)
    assert {"README.md", "lineage.json", "student.json", "student.safetensors"} < set(files)
    assert f'load_student("hf-hub:{NAME}")' in files["README.md"].decode()
    run, found = load_student(tmp_path / "work" / "runs" / "best"), load_student(f"hf-hub:{NAME}")
    inputs = batch(run.student, hub.TEXTS)
    assert torch.equal(found(inputs), run(inputs)) and found.classes == run.classes


def test_the_cache_gives_a_student_without_the_hub(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = export(trained("tiny:cnn", tmp_path))
    hub.fill_cache(tmp_path / "cache", NAME, Path(str(place)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_student(f"hf-hub:{NAME}").classes[0] == load_student(f"hf-hub:{NAME}@{'c' * 40}").classes[0] == "cat"
    with pytest.raises(InputError, match="me/other is not in the model hub's cache, and the hub does not give it"):
        load_student("hf-hub:me/other")
    assert not server.requests


def test_the_newest_revision_is_loaded_and_older_ones_by_name(server: Hub, tmp_path: Path) -> None:
    push(export(trained("tiny:cnn", tmp_path / "a")), NAME, public=True)
    push(export(trained("linear_probe", tmp_path / "b")), NAME, public=True)
    assert load_student(f"hf-hub:{NAME}").input_teachers == ("t0", "t1")
    assert load_student(f"hf-hub:{NAME}@{commit_id(1)}").input_teachers == ()
    assert server.visibility[NAME] == "public"


@pytest.mark.parametrize("kind", ["timm", "bert"])
def test_the_library_loads_a_pushed_student_by_the_lines_of_its_card(kind: str, server: Hub, tmp_path: Path) -> None:
    """In a process that knows the server as HF_ENDPOINT, as a user's does."""
    options = {} if kind == "timm" else {"pooling": "head"}
    recipe = trained(kind, tmp_path, **options)
    push(export(recipe, repository=NAME), NAME, public=True)
    text = server.files(NAME)["README.md"].decode()
    usage = text.split("```python\n")[1].split("```")[0]
    assert f'"hf-hub:{NAME}"' in usage if kind == "timm" else f'from_pretrained("{NAME}")' in usage
    named = 'assert model.pretrained_cfg["label_names"][1] == "dog"'
    used = (
        named
        if kind == "timm"
        else f'assert model.config.id2label[1] == "dog" and len(tokenizer({hub.TEXTS!r}).input_ids)'
    )
    used += (
        ""
        if kind == "timm"
        else (
            f'\nfrom transformers import pipeline\nfound = pipeline("text-classification", "{NAME}")({hub.TEXTS!r})'
            '\nassert len(found) == 4 and {f["label"] for f in found} <= set(model.config.label2id)'
        )
    )
    cache = {"HF_HUB_CACHE": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"} | cache
    subprocess.run([sys.executable, "-c", usage + used], env=environment, check=True, cwd=tmp_path)
    with pytest.raises(InputError, match=f"hf-hub:{NAME} has no student.json, from which load_student builds"):
        load_student(f"hf-hub:{NAME}")


def test_files_of_others_are_never_replaced(server: Hub, tmp_path: Path) -> None:
    server.add(NAME, README_md=b"my own page", notes_txt=b"mine", config_json=b"{}")
    place = export(trained("timm", tmp_path))
    with pytest.raises(InputError) as refused:
        push(place, NAME, public=False)
    assert sorted(refused.value.faults) == [
        f"{NAME} holds {file}, which is not as 'aft-ray export' wrote it. Rename or delete it there, or push to another"
        " repository."
        for file in ("README.md", "config.json")
    ]
    assert len(server.repositories[NAME]) == 2
    server.repositories[NAME].append({"notes.txt": b"mine"})
    push(place, NAME, public=False)
    assert server.files(NAME)["notes.txt"] == b"mine" and "config.json" in server.files(NAME)


def test_a_file_that_was_changed_on_the_hub_is_kept_and_an_unchanged_one_is_replaced(
    server: Hub, tmp_path: Path
) -> None:
    push(export(trained("tiny:cnn", tmp_path / "a")), NAME, public=False)
    place = export(trained("linear_probe", tmp_path / "b"))
    push(place, NAME, public=False)
    assert b"linear_probe" in server.files(NAME)["README.md"]
    server.add(NAME, README_md=b"edited on the hub")
    with pytest.raises(InputError, match="holds README.md, which is not as"):
        push(place, NAME, public=False)
    assert server.files(NAME)["README.md"] == b"edited on the hub"


def test_files_of_the_export_of_before_are_deleted_in_the_same_commit(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = trained("linear_probe", tmp_path)
    push(export(recipe, onnx=True), NAME, public=False)
    assert "model.onnx" in server.files(NAME)
    capsys.readouterr()
    push(export(recipe), NAME, public=False)
    assert "model.onnx" not in server.files(NAME) and len(server.repositories[NAME]) == 3
    said = capsys.readouterr().err
    assert f"uploading README.md, lineage.json, student.json, student.safetensors to {server.url}/{NAME}" in said
    assert "which is private" in said and "deleting model.onnx there, of the export of before" in said


def test_a_push_says_everything_that_it_lacks_before_it_exports(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    recipe = trained("tiny:cnn", tmp_path)
    with pytest.raises(InputError) as refused:
        export_verb(recipe, push_to_hub="flowers")
    assert refused.value.faults == [
        "--push-to-hub: 'flowers' must have the form ORGANISATION/NAME or USER/NAME.",
        "--push-to-hub needs a token that may write: set HF_TOKEN, or run 'hf auth login'.",
        "--push-to-hub needs the model hub: unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.",
    ]
    assert not (tmp_path / "work" / "runs" / "best" / "export").exists() and not server.requests


def test_a_token_that_the_hub_refuses_is_a_line_without_it(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 34)
    recipe = trained("tiny:cnn", tmp_path)
    with pytest.raises(InputError, match="Set HF_TOKEN to a token that may write there.") as refused:
        export_verb(recipe, push_to_hub=NAME)
    assert "yyy" not in str(refused.value) and not server.repositories
    assert (tmp_path / "work" / "runs" / "best" / "export" / "README.md").exists()


def test_the_command_line_pushes(server: Hub, tmp_path: Path) -> None:
    recipe = trained("tiny:cnn", tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json(exclude_unset=True))))
    own = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "aft_ray.cli", "export", str(file), "--push-to-hub", NAME, "--public"]
    done = subprocess.run(command, env=os.environ | own, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"pushed to {server.url}/{NAME}" in done.stdout and "which is public" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "student.safetensors" in server.files(NAME)
