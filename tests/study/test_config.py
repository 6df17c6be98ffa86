"""A study's file: its settings, the workspaces that they share, and every fault at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.study.config import load_study

STUDY = """
workspace: {root}
run: small
dataset: {{name: mnist5k, max_samples: 200}}
teachers: [{{name: a, model: "timm:test_vit"}}]
student: {{model: "tiny:cnn"}}
search: {{compare: [none, aft]}}
settings:
  data:
    digits: {{}}
    scans: {{dataset.name: digits}}
  labels:
    few: {{train.labels_per_class: 5}}
    all: {{}}
"""


def written(tmp_path: Path, *replaced: tuple[str, str], more: str = "") -> Path:
    text = STUDY.format(root=tmp_path / "place") + more
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_settings_are_all_combinations_and_share_the_workspace_of_their_samples(tmp_path: Path) -> None:
    study = load_study(written(tmp_path), ["train.steps=7"])
    assert list(study.settings) == ["digits-few", "digits-all", "scans-few", "scans-all"]
    assert [names for names in study.workspaces.values()] == [["digits-few", "digits-all"], ["scans-few", "scans-all"]]
    recipes = list(study.settings.values())
    assert [recipe.train.labels_per_class for recipe in recipes] == [5, None, 5, None]
    assert {recipe.train.steps for recipe in recipes} == {7}
    assert recipes[0].run == "small.digits-few" and recipes[0].workspace.startswith(f"{tmp_path}/place/mnist5k-")
    assert str(study.place) == f"{tmp_path}/place/studies/small"


def test_the_warm_up_of_a_study_s_preset_follows_the_steps_of_each_setting(tmp_path: Path) -> None:
    preset = ("settings:\n", "train: {preset: finetune, steps: 400}\nsettings:\n")
    file = written(tmp_path, preset, ("    digits: {}\n", "    digits: {train.steps: 40}\n"))
    warmups = {name: recipe.train.num_warmup_steps for name, recipe in load_study(file).settings.items()}
    assert warmups == {"digits-few": 10, "digits-all": 10, "scans-few": 50, "scans-all": 50}
    shorter = load_study(file, ["train.steps=80"]).settings.values()
    assert {recipe.train.num_warmup_steps for recipe in shorter} == {20}


def test_another_study_of_the_same_samples_finds_them_in_the_same_workspace(tmp_path: Path) -> None:
    first = load_study(written(tmp_path))
    second = load_study(written(tmp_path, ("run: small", "run: other"), ("    digits: {}\n", "")))
    assert second.settings["scans-all"].workspace == first.settings["scans-all"].workspace
    assert second.settings["scans-all"].run != first.settings["scans-all"].run


def test_a_workspace_s_name_depends_on_the_keys_that_the_study_gives(tmp_path: Path) -> None:
    given = load_study(written(tmp_path)).settings["digits-all"].workspace
    spelt = load_study(written(tmp_path), ["dataset.test_fraction=0.2"]).settings["digits-all"].workspace
    other = load_study(written(tmp_path), ["dataset.test_fraction=0.3"]).settings["digits-all"].workspace
    assert given == spelt != other, "0.2 is the default"


def test_what_is_written_beside_the_page_is_the_study(tmp_path: Path) -> None:
    study = load_study(written(tmp_path), ["train.steps=7", "run=other"])
    (tmp_path / "again.yaml").write_text(study.text())
    again = load_study(tmp_path / "again.yaml", study.overrides)
    assert again == study and again.name == "other" and study.overrides == ("train.steps=7",)


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    study = load_study(written(tmp_path), ["train.labels_per_class=9"])
    assert {recipe.train.labels_per_class for recipe in study.settings.values()} == {9}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("settings:", "setings:", ["A study needs 'settings'"]),
        ("few: {train.labels_per_class: 5}", "few: {train.labels_per_class: -1, train.stepz: 3}", [
            "Setting digits-few, scans-few: Unknown key 'train.stepz'",
            "Setting digits-few, scans-few: train.labels_per_class must be greater than 0",
        ]),
        ("student: {model: \"tiny:cnn\"}", "student: {modl: x}", ["Unknown key 'student.modl'", "Missing key 'student.model'."]),
        ("all: {}", "a/b: {run: x}", ["settings.labels: a name has letters", "settings.labels.a/b cannot have run"]),
        ("all: {}", "all: 3", ["settings.labels.all must map dotted keys to values, got 3."]),
        ("digits: {}", "digits: {workspace: here}", []),
        ("scans: {dataset.name: digits}", "scans: {dataset.name: digits, workspace: w}\n    other: {workspace: w}", [
            "Settings scans-few, scans-all, other-few, other-all have one workspace, w, and different data sets.",
        ]),
        ("few: {train.labels_per_class: 5}", "few: {teachers: [{name: a, model: \"timm:test_resnet\"}]}", [
            "Teacher 'a' is not the same in settings digits-few and digits-all",
            "Teacher 'a' is not the same in settings scans-few and scans-all",
        ]),
    ],
)  # fmt: skip
def test_faults_are_told_at_once_with_their_settings(tmp_path: Path, old: str, new: str, lines: list[str]) -> None:
    path = written(tmp_path, (old, new))
    if not lines:
        load_study(path)
        return
    with pytest.raises(InputError) as refused:
        load_study(path)
    faults = sorted(refused.value.faults)
    assert len(faults) == len(lines) and all(
        f.startswith(line) for f, line in zip(faults, sorted(lines), strict=True)
    ), faults


def test_two_settings_of_one_name_are_refused(tmp_path: Path) -> None:
    """The second would take the place of the first."""
    path = written(
        tmp_path,
        ("digits: {}", "digits: {}\n    scans-few: {dataset.name: mnist}"),
        ("all: {}", "all: {}\n    few-all: {}"),
    )
    with pytest.raises(InputError) as refused:
        load_study(path)
    assert refused.value.faults == [
        "Several settings would be called scans-few-all: data scans-few, labels all; data scans, labels few-all."
        " Give a part of one another name."
    ]


def test_a_setting_s_base_is_a_recipe_over_which_the_study_s_keys_hold(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "workspace: elsewhere\nrun: base\ntrain: {steps: 11, seed: 5}\nsearch: {seeds: 4, compare: [kd]}\n"
    )
    path = written(
        tmp_path,
        ("digits: {}", "digits: {base: base.yaml, train.seed: 6}"),
        more="train: {global_batch_size: 7}\n",
    )
    study = load_study(path)
    recipe, other = study.settings["digits-all"], study.settings["scans-all"]
    assert (recipe.train.steps, recipe.train.seed, recipe.train.global_batch_size) == (11, 6, 7)
    assert recipe.search.seeds == 4 and recipe.search.compare == ("none", "aft")
    assert recipe.workspace.startswith(f"{tmp_path}/place/") and other.train.steps != 11
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "again.yaml").write_text(study.text())
    assert load_study(tmp_path / "elsewhere" / "again.yaml").settings == study.settings, "its base is inside"


def test_a_wrong_base_reference_and_place_of_records_are_faults(tmp_path: Path) -> None:
    path = written(tmp_path, ("digits: {}", "digits: {base: 3}"), more="reference: digits\nrecords: ''\n")
    with pytest.raises(InputError) as refused:
        load_study(path)
    assert refused.value.faults == [
        "settings.data.digits: base must be the name of a file, got 3.",
        f"{path}: records must name a directory or URL, got ''.",
    ]
    path = written(tmp_path, more="reference: digits\n")
    with pytest.raises(InputError, match="reference must name a setting, got 'digits'. Settings: digits-few, "):
        load_study(path)


def test_a_section_of_a_setting_changes_its_keys_and_leaves_the_others(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        ("few: {train.labels_per_class: 5}", "few: {dataset: {split_seed: 1}, train: {labels_per_class: 5}}"),
        ("digits: {}", "digits: {train: {steps: 7}}"),
    )
    given = load_study(path).settings["digits-few"]
    assert (given.dataset.name, given.dataset.max_samples, given.dataset.split_seed) == ("mnist5k", 200, 1)
    assert (given.train.steps, given.train.labels_per_class) == (7, 5)


def test_a_study_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study.yaml has 'settings': it is a study. Run it with 'aft-ray study'."):
        load(written(tmp_path))
