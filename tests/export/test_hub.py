"""Exports go to a model hub and come back from it, through the hub's own client and a server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

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

pytestmark = pytest.mark.slow

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


LIBRARIES: dict[str, tuple[str, dict[str, str]]] = {
    "timm": ("timm", {}),
    "open_clip": ("open_clip", {}),
    "bert": ("bert", {"pooling": "head"}),
    "bert, pooled": ("bert", {"pooling": "mean"}),
}
"""Students by name: their kind, and their options."""


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_pushed_student_of_a_library_is_loaded_from_its_repository(
    name: str, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model that it was made from is gone, and without the hub once it is in the cache."""
    kind, options = LIBRARIES[name]
    push(export(trained(kind, tmp_path, **options), repository=NAME), NAME, public=False)
    server.add(NAME, large_safetensors=b"of somebody else", ORIGIN_md=b"mine")
    run = load_student(tmp_path / "work" / "runs" / "best")
    expected = run(batch(run.student, hub.TEXTS))
    shutil.rmtree(tmp_path / kind, ignore_errors=True)
    found = load_student(f"hf-hub:{NAME}")
    assert torch.equal(found(batch(found.student, hub.TEXTS)), expected) and found.classes == run.classes
    assert not list((tmp_path / "cache").rglob("large.safetensors")), "only the files of the student are downloaded"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    assert load_student(f"hf-hub:{NAME}").classes == run.classes and len(server.requests) == asked


LOADED = {
    "timm": """
import timm, torch
from safetensors.torch import load_file
model = timm.create_model("hf-hub:{name}", pretrained=True).eval()
assert model.pretrained_cfg["label_names"][1] == "dog"
logits = model(load_file("inputs")["pixels"])
""",
    "bert": """
import torch
from transformers import pipeline
ask = pipeline("text-classification", "{name}", top_k=None, function_to_apply="none")
found = [{{row["label"]: row["score"] for row in rows}} for rows in ask({texts!r})]
logits = torch.tensor([[row[name] for _, name in sorted(ask.model.config.id2label.items())] for row in found])
""",
}


@pytest.mark.processes
@pytest.mark.parametrize("kind", LOADED)
def test_the_library_s_own_loader_gives_the_logits_of_a_pushed_student(kind: str, server: Hub, tmp_path: Path) -> None:
    """In a process that knows the server as HF_ENDPOINT, as a user's does, and has no aft_ray."""
    recipe = trained(kind, tmp_path, **({} if kind == "timm" else {"pooling": "head"}))
    push(export(recipe, repository=NAME), NAME, public=True)
    run = load_student(tmp_path / "work" / "runs" / "best")
    inputs = batch(run.student, hub.TEXTS)
    prepared = dict(zip(run.student.axes, run.student.prepare(inputs), strict=True))
    save_file({name: tensor.contiguous() for name, tensor in prepared.items()}, tmp_path / "inputs")
    script = LOADED[kind].format(name=NAME, texts=hub.TEXTS)
    usage = server.files(NAME)["README.md"].decode().split("```python\n")[1].split("```")[0]
    script = f"{script}{usage}\nfrom safetensors.torch import save_file\nsave_file({{'logits': logits}}, 'logits')"
    cache = {"HF_HUB_CACHE": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"} | cache
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_file(tmp_path / "logits")["logits"], run(inputs), rtol=0, atol=1e-5)


def test_a_repository_of_another_kind_is_one_line(server: Hub, tmp_path: Path) -> None:
    server.add(NAME, config_json=b"{}")
    with pytest.raises(InputError, match=f"hf-hub:{NAME} has no student.json, which 'aft-ray export' writes"):
        load_student(f"hf-hub:{NAME}")


def test_the_card_of_a_pooled_text_student_claims_no_pipeline(server: Hub, tmp_path: Path) -> None:
    cards = {}
    for pooling in ("head", "mean"):
        recipe = trained("bert", tmp_path / pooling, pooling=pooling)
        text = export(recipe, repository=NAME).read("README.md").decode()
        cards[pooling] = text, yaml.safe_load(text.split("---\n", 2)[1])
    assert cards["head"][1]["pipeline_tag"] == "text-classification" and "untrained head" not in cards["head"][0]
    assert "pipeline_tag" not in cards["mean"][1] and "would put an untrained head on the encoder" in cards["mean"][0]
    for text, _ in cards.values():
        assert f'`aft_ray.load_student("hf-hub:{NAME}")` gives the same logits' in text
        assert "| student | `transformers:bert` |" in text and "place='bert'" in text and str(tmp_path) not in text


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


@pytest.mark.processes
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
