"""`aft-ray keys`, and the sections that a verb's help names."""

from __future__ import annotations

import json

import pytest

from aft_ray import cli
from aft_ray.commands import recipe_verbs, verbs
from aft_ray.recipe.reference import recipe_keys


def keys(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert cli.main(["keys", *arguments]) == status
    said = capsys.readouterr()
    return said.out if status == 0 else said.err


def test_all_keys_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = keys(capsys).splitlines()
    assert [line.split()[0] for line in lines[: len(recipe_keys())]] == [key.name for key in recipe_keys()]


@pytest.mark.parametrize("name", ["train.steps", "steps"])
def test_a_key_is_explained_under_its_name_with_or_without_its_section(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    said = keys(capsys, name)
    assert "default  1000" in said and "Optimizer steps." in said


def test_a_section_is_a_table_and_a_method_s_own_options_follow(capsys: pytest.CaptureFixture[str]) -> None:
    assert "steps_per_student_step" in (said := keys(capsys, "regularizer"))
    assert "learn_gates=True" in said and "probes" not in said  # fitted to the data: no recipe gives them
    assert "pooling" in keys(capsys, "teachers")


def test_a_wrong_name_is_wrong_input_and_the_nearest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'train.steps'" in keys(capsys, "train.stepps", status=2)


def test_programs_read_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert {found["name"] for found in json.loads(keys(capsys, "resources", "--as", "json"))} >= {"resources.wait_s"}


@pytest.mark.parametrize("verb", recipe_verbs())
def test_the_help_of_a_verb_names_the_sections_that_it_reads(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    sections = verbs()[verb].SECTIONS  # every verb of a recipe says them, be it none
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ("of the recipe; 'aft-ray keys SECTION' explains their keys." in said) == bool(sections)
    assert all(section in said for section in sections)
