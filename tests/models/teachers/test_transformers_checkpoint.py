"""The files of a checkpoint are identified and used as they are; faults in them are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.errors import InputError
from tests.helpers import hub
from tests.helpers.transformers_teachers import CPU, assert_equal, config, one_by_one


def drop(place: Path, *prefixes: str) -> None:
    state = load_file(place / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    assert len(kept) < len(state)
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_the_checkpoint_lacks_are_never_used(tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path)
    drop(place, "pooler.")
    expected = one_by_one(place, lambda model, row: model(**row).last_hidden_state[:, 0])
    assert_equal(build_teacher(config(place), CPU)(hub.TEXTS), expected)
    with pytest.raises(InputError, match="^Teacher 'mine': .* lacks 2 of the model's tensors, such as 'pooler.dense"):
        build_teacher(config(place, pooling="pooler"), CPU)
    drop(place, "encoder.layer.1.")
    with pytest.raises(InputError, match="lacks 16 of the model's tensors, such as 'encoder.layer.1."):
        build_teacher(config(place), CPU)


def test_the_fingerprint_follows_what_changes_the_features(tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path / "a")
    base = describe_teacher(config(place)).fingerprint
    for changed in ({"precision": "bf16"}, {"pooling": "mean"}, {"max_length": 8}, {"features_dtype": "float32"}):
        assert describe_teacher(config(place, **changed)).fingerprint != base
    for same in ({"batch_size": 2}, {"compile": True}, {"num_actors": 3}, {"num_gpus": 1}):
        assert describe_teacher(config(place, **same)).fingerprint == base
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        content = (place / file).read_bytes()
        (place / file).write_bytes(content + b" ")
        assert describe_teacher(config(place)).fingerprint != base
        (place / file).write_bytes(content)


def test_all_shards_of_a_checkpoint_count(tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path)
    whole = build_teacher(config(place), CPU)(hub.TEXTS)
    model = transformers.AutoModel.from_pretrained(place)
    (place / "model.safetensors").unlink()
    model.save_pretrained(place, max_shard_size="20KB")
    shards = sorted(place.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert_equal(build_teacher(config(place), CPU)(hub.TEXTS), whole)
    before = describe_teacher(config(place)).fingerprint
    shards[-1].write_bytes(shards[-1].read_bytes() + b" ")
    assert describe_teacher(config(place)).fingerprint != before


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path / "model")
    (place / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": hub.Payload(tmp_path / "executed")}, place / "pytorch_model.bin")
    with pytest.raises(InputError, match="^Teacher 'mine': the weights of .* are pickled objects, which could execute"):
        build_teacher(config(place), CPU)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("family", "changes", "line"),
    [
        ("bert", {"tower": "image"}, "'tower: image' has no meaning for bert models, which take texts."),
        ("bert", {"weights": "x.pth"}, "'weights' has no meaning for transformers models; give their directory as"),
        ("bert", {"image_size": 64}, "'image_size' has no meaning for a teacher of texts."),
        ("bert", {"pooling": "eos"}, "'pooling: eos' has no meaning for bert models. Known: cls, mean, pooler, last."),
        (
            "bert",
            {"options": {"a": 1}},
            "'options' has no meaning for transformers models, only for a class of your own",
        ),
        ("t5", {"pooling": "cls"}, "'pooling: cls' has no meaning for t5 models. Known: eos, mean."),
    ],
)
def test_settings_without_effect_are_refused(family: str, changes: dict, line: str, tmp_path: Path) -> None:
    place = hub.save_text_model(family, tmp_path)
    with pytest.raises(InputError) as caught:
        describe_teacher(config(place, **changes))
    assert caught.value.faults[0].startswith(f"Teacher 'mine': {line}")


@pytest.mark.parametrize(
    ("removed", "line"),
    [
        ("config.json", "has no config.json."),
        (
            "model.safetensors",
            "has no weights: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin,",
        ),
        ("tokenizer.json", "has no tokenizer: looked for tokenizer.json, "),
    ],
)
def test_a_file_that_is_missing_is_named(removed: str, line: str, tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path)
    (place / removed).unlink()
    with pytest.raises(InputError, match=f"^Teacher 'mine': {place} {line}"):
        describe_teacher(config(place))


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InputError, match="transformers has no model type 'mine', and code from .* is not run. Write a"):
        describe_teacher(config(tmp_path))


def test_a_model_of_the_hub_is_loaded_from_the_cache_at_the_commit_that_was_identified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    found, fingerprints = [], []
    for seed in (0, 1):
        place = hub.save_text_model("bert", tmp_path / str(seed), seed=seed)
        hub.fill_cache(tmp_path / "cache", "org/tiny", place, commit=str(seed) * 40)
        found.append(build_teacher(config("org/tiny"), CPU)(hub.TEXTS))
        fingerprints.append(describe_teacher(config("org/tiny")).fingerprint)
        assert_equal(found[seed], build_teacher(config(place), CPU)(hub.TEXTS))
    assert fingerprints[0] != fingerprints[1]
    assert_equal(build_teacher(config(f"org/tiny@{'0' * 40}"), CPU)(hub.TEXTS), found[0])
    with pytest.raises(InputError, match="^Teacher 'mine': org/none is not in .*cache, .* Run 'hf download org/none'"):
        describe_teacher(config("org/none"))
