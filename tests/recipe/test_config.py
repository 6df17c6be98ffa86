from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aft_ray.recipe.config import Recipe, dump, fingerprint, load, load_text, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.files import merged
from aft_ray.recipe.model import Model
from aft_ray.recipe.sections import DatasetConfig

MINIMAL = "workspace: w\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def faults(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, text), overrides)
    return caught.value.faults


def test_the_contract_s_recipe_is_accepted(tmp_path: Path) -> None:
    recipe = load(
        write(
            tmp_path,
            """
workspace: work/flowers
dataset: {name: flowers102}
teachers:
  - timm:vit_giant_patch14_dinov2.lvd142m
  - open_clip:ViT-bigG-14/laion2b_s39b_b160k
  - {name: lite2, model: "timm:tf_efficientnet_lite2", weights: "package://m/f.pth"}
student: {model: "timm:vit_small_patch16_224.augreg_in1k", pretrained: true}
regularizer: {name: aft, beta: 10.0, learning_rate: 0.01, learn_gates: false}
train: {steps: 5000, global_batch_size: 128, optimizer: adam, learning_rate: 1.0e-4, num_workers: 2, use_gpu: true}
search: {beta: [1, 3, 10, 30], teachers: all_subsets, num_samples: 32, scheduler: asha}
""",
        )
    )
    assert recipe.teacher_names() == (
        "timm-vit_giant_patch14_dinov2.lvd142m",
        "open_clip-ViT-bigG-14-laion2b_s39b_b160k",
        "lite2",
    )
    assert recipe.regularizer.options == {"learn_gates": False}
    assert recipe.search.betas("kd") == (1, 3, 10, 30)
    assert load_text(dump(recipe)) == recipe


def test_overrides_are_dotted_and_their_values_are_yaml(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, MINIMAL), ["train.learning_rate=3e-4", "search.beta=[1, 2]", "run=other"])
    assert (recipe.train.learning_rate, recipe.search.betas("aft"), recipe.run) == (3e-4, (1.0, 2.0), "other")


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("search.beta={kd: [1], all: [2, 3]}", "beta", {"kd": (1.0,), "all": (2.0, 3.0)}),
        ("search.space={train.steps: [1, 2]}", "space", {"train.steps": (1, 2)}),
    ],
)
def test_an_override_may_be_a_mapping(tmp_path: Path, change: str, key: str, value: object) -> None:
    assert getattr(load(write(tmp_path, MINIMAL), [change]).search, key) == value
    (line,) = faults(tmp_path, MINIMAL, change[:-1])
    assert line.startswith(f"Override {change[:-1]} is not valid YAML: line 1, column ")


def test_override_checks_again_and_leaves_the_original_alone(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, MINIMAL))
    assert override(recipe, {"train.steps": 7}).train.steps == 7
    assert recipe.train.steps == Recipe.model_fields["train"].default.steps
    with pytest.raises(InputError, match=r"train\.steps must be greater than 0, got 0\."):
        override(recipe, {"train.steps": 0})


def test_all_faults_come_at_once_one_line_each(tmp_path: Path) -> None:
    text = "workspace: w\ndataset: {name: x, foo: 1}\nregularizer: {beta: -1}\ntrian: {}\n"
    lines = faults(tmp_path, text, "train.steps=abc", "steps")
    assert lines[0] == "Override 'steps' must have the form key=value, such as train.steps=100."
    assert "Missing key 'student'." in lines
    assert "regularizer.beta must be greater than or equal to 0, got -1." in lines
    assert any(line.startswith("Unknown key 'trian'. Did you mean 'train'? Known: workspace, ") for line in lines)
    assert any(line.startswith("Unknown key 'dataset.foo'. Known: name, source, ") for line in lines)
    assert any(line.startswith("train.steps must be ") and line.endswith("got 'abc'.") for line in lines)
    assert len(lines) == 6


def test_what_is_no_section_and_no_list_is_told_beside_other_faults(tmp_path: Path) -> None:
    text = "workspace: w\ndataset: {name: mnist5k}\nstudent: tiny:cnn\ntrain: {stepps: 3}\nsearch: {beta: [x], compare: aft}"
    unknown, beta, compare, student = sorted(faults(tmp_path, text))  # one line each, so nothing hides another
    assert unknown.startswith("Unknown key 'train.stepps'.") and beta.startswith("search.beta.all.0 must be a number")
    assert compare == "search.compare must be a list, got 'aft'."
    assert student.startswith("student must be a section with keys of model, ") and student.endswith("got 'tiny:cnn'.")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (MINIMAL + "teachers: [{model: 'timm:a', nme: b}]", "Unknown key 'teachers.0.nme'. Did you mean 'name'?"),
        (MINIMAL + "teachers: [{model: 'timm:a', name: ../b}]", "teachers.0.name: a name has letters, digits,"),
        (MINIMAL + "teachers: ['timm:a', 'timm:a']", "teachers: two teachers have the same name: timm-a"),
        (
            MINIMAL + "teachers: [{model: 'timm:a', name: a.view2}]",
            "teachers: names ending in .viewN belong to the views",
        ),
        (MINIMAL + "search: {teachers: [[x]]}", "search.teachers names 'x'; teachers: none."),
        (
            MINIMAL + "search: {teachers: 3}",
            "search.teachers must be all_subsets, singles, singles_and_pairs, top_K_by_rank",
        ),
        (MINIMAL + "run: a/b", "run: a name has letters"),
        ("workspace: w\ndataset: {}\nstudent: {model: m}", "dataset: give exactly one of 'name' and 'source'."),
        (
            "workspace: w\ndataset: {source: image_folder}\nstudent: {model: m}",
            "dataset: source 'image_folder' needs 'path'.",
        ),
        ("- 1", "must be a mapping of keys, got list."),
        ("a: [", "is not valid YAML"),
    ],
)
def test_helpful_errors(tmp_path: Path, text: str, line: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert line in fault


def test_a_base_gives_what_a_recipe_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "first.yaml").write_text(
        "train: {steps: 5, seed: 9}\nrun: r\nteachers: ['timm:a', 'timm:b']\n"
    )
    (tmp_path / "shared" / "second.yaml").write_text("base: first.yaml\ntrain: {steps: 7}\nregularizer: {beta: 3}\n")
    text = MINIMAL + "base: shared/second.yaml\ntrain: {learning_rate: 0.1}\nteachers: ['timm:c']\n"
    recipe = load(write(tmp_path, text), ["regularizer.name=kd"])
    assert (recipe.train.steps, recipe.train.seed, recipe.train.learning_rate) == (7, 9, 0.1)
    assert (recipe.run, recipe.teacher_names()) == ("r", ("timm-c",))
    assert (recipe.regularizer.name, recipe.regularizer.beta) == ("kd", 3)
    assert "base" not in dump(recipe) and load_text(dump(recipe)) == recipe


def sections(model: type[Model], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[Model]]]:
    """Every section of the recipe's model, with its place."""
    yield path, model
    for name, annotation in typing.get_type_hints(model).items():
        if isinstance(annotation, type) and issubclass(annotation, Model):
            yield from sections(annotation, (*path, name))


def nested(path: tuple[str, ...], value: Any) -> Any:
    return {path[0]: nested(path[1:], value)} if path else value


SECTIONS = dict(sections(Recipe))


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: ".".join(path) or "recipe")
def test_a_key_of_any_section_leaves_the_base_s_other_keys_as_they_are(path: tuple[str, ...]) -> None:
    values = {key: {"inside": 1, "beside": 2} for key in SECTIONS[path].model_fields}
    for key in values:
        inner = merged(nested(path, values), nested(path, {key: {"inside": 3}}))
        assert inner == nested(path, values | {key: {"inside": 3, "beside": 2}})
        assert merged(nested(path, values), nested(path, {key: [3]})) == nested(path, values | {key: [3]})


def test_a_base_is_merged_level_by_level(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        MINIMAL + "teachers: [{model: 'timm:a', options: {depth: 3}}]\n"
        "search:\n  beta: {aft: [1], kd: {min: 1, max: 9}}\n  searcher: random\n  num_samples: 4\n"
        "  final: {seeds: 1, train_on: train}\n"
    )
    text = "base: base.yaml\nsearch: {final: {seeds: 3}, beta: {kd: {max: 5}, ft: [2]}}\nteachers: ['timm:b']\n"
    recipe = load(write(tmp_path, text))
    assert (recipe.search.final.seeds, recipe.search.final.train_on, recipe.search.num_samples) == (3, "train", 4)
    assert recipe.search.betas("aft") == (1,) and recipe.search.betas("ft") == (2,)
    kd: Any = recipe.search.betas("kd")
    assert (kd.min, kd.max) == (1, 5)
    assert recipe.teacher_names() == ("timm-b",) and recipe.teachers[0].options == {}  # a list replaces a list


@pytest.mark.parametrize(
    ("base", "child"), [("{aft: [1]}", "{min: 1, max: 9}"), ("{min: 1, max: 9}", "{aft: [1]}"), ("[3]", "{aft: [1]}")]
)
def test_a_range_and_strengths_per_method_replace_each_other(tmp_path: Path, base: str, child: str) -> None:
    rest = "searcher: random, num_samples: 4"
    (tmp_path / "base.yaml").write_text(MINIMAL + f"search: {{{rest}, beta: {base}}}\n")
    based = load(write(tmp_path, f"base: base.yaml\nsearch: {{beta: {child}}}\n"))
    assert based == load(write(tmp_path, MINIMAL + f"search: {{{rest}, beta: {child}}}\n"))


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("train: {stepps: 3}", "Unknown key 'train.stepps'. Did you mean 'steps'?"),
        ("base: recipe.yaml", "is based on itself: "),
        ("base: gone.yaml", "Base of {folder}/base.yaml: {folder}/gone.yaml does not exist."),
        ("base: [recipe.yaml]", "base must be the name of a file, got ['recipe.yaml']."),
        ("- 1", "Base of {folder}/recipe.yaml: {folder}/base.yaml must be a mapping of keys, got list."),
    ],
)
def test_faults_of_a_base(tmp_path: Path, base: str, line: str) -> None:
    (tmp_path / "base.yaml").write_text(base)
    (fault,) = faults(tmp_path, MINIMAL + "base: base.yaml\n")
    assert line.format(folder=tmp_path) in fault


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml\n")
    (tmp_path / "1500.yaml").write_text(MINIMAL)
    assert load(tmp_path / "1450.yaml") == load(tmp_path / "1500.yaml")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "0.yaml")
    name = f"{tmp_path}/{{}}.yaml".format
    chain = f"{name(0)} -> {name(1)} -> ... -> {name(50)}"
    assert caught.value.faults == [
        f"Base of {name(49)}: {name(50)} is the last of 50 bases in a chain, and has another: {chain}. Merge some of them."
    ]


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml does not exist\."):
        load(tmp_path / "nowhere.yaml")


def test_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def kinds(model: type[Model]) -> Iterator[type[Model]]:
    for kind in model.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_key_says_what_it_means_in_one_sentence_or_a_few() -> None:
    found = {kind for kind in kinds(Model) if kind.__module__.startswith("aft_ray.")}
    assert found > set(SECTIONS.values())
    for kind in found:
        for name, field in kind.model_fields.items():
            text = field.description or ""
            assert text[:1].isupper() or text[:1] == "`", f"{kind.__name__}.{name}: {text!r}"
            assert text.endswith(".") and len(text) <= 400, f"{kind.__name__}.{name}: {text!r}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("data/*.csv", ()), ("data/part-?.csv", ()), ("data/part-[0-9].csv", ()), ("data", ("data",))],
)
def test_nodes_are_asked_for_the_paths_of_raw_data_not_for_patterns(path: str, expected: tuple[str, ...]) -> None:
    dataset = DatasetConfig.model_validate({"source": "csv", "path": path, "columns": {"text": "text"}})
    assert dataset.paths() == tuple(str(Path(name).absolute()) for name in expected)
