"""Faults of the section `search`."""

from __future__ import annotations

from typing import Any

import pytest

from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.search.check import faults, num_trials, variant_faults
from aft_ray.search.space import first_subset, plan_trials, teacher_subsets
from tests.search.test_space import planned


@pytest.mark.parametrize(
    "section",
    [
        {"searcher": "random", "num_samples": 10**12, "beta": {"min": 1, "max": 2}},
        {"seeds": 10**9},
        {"space": {f"train.{key}": list(range(1, 100)) for key in ("steps", "warmup_steps", "evaluate_every")}},
    ],
)
def test_a_search_of_absurd_size_is_told_and_never_listed(section: dict) -> None:
    (line,) = faults(planned(**section))
    assert line.startswith("The search would run ") and "Lower search.num_samples" in line


def many_teachers(count: int, **section: Any) -> Recipe:
    teachers = [{"name": f"t{number}", "model": "timm:test_vit"} for number in range(count)]
    return override(planned(**section), {"teachers": teachers})


def test_combinations_of_many_teachers_are_told_and_never_listed() -> None:
    given = many_teachers(40, searcher="random", num_samples=8)
    (line,) = faults(given)
    assert line.startswith("search.teachers=all_subsets makes 1,099,511,627,775 combinations of 40 teachers")
    assert first_subset(given) == ("t0",) and variant_faults(given) == []
    with pytest.raises(InputError, match="Take singles, singles_and_pairs or a list"):
        teacher_subsets(given)
    assert faults(many_teachers(40, searcher="random", num_samples=8, teachers="singles_and_pairs")) == []


@pytest.mark.parametrize(
    "section",
    [
        {"compare": ["none", "kd", "aft"], "beta": {"kd": [1], "all": [2, 3]}, "seeds": 2},
        {"teachers": "singles", "searcher": "random", "num_samples": 4},
        {"teachers": [["a"], ["a", "b"]], "space": {"train.steps": [1, 2, 3]}},
    ],
)
def test_trials_are_counted_without_listing_them(section: dict) -> None:
    given = planned(**section)
    assert num_trials(given) == len(plan_trials(given, teacher_subsets(given)))


def test_final_runs_that_cannot_join_streamed_splits_are_told_before_anything_is_read() -> None:
    streamed = override(planned(), {"train.streaming": True})
    (line,) = faults(streamed)
    assert line.endswith("cannot be trained on both train and validation. Set search.final.train_on=train.")
    assert faults(override(streamed, {"search.final.train_on": "train"})) == faults(planned())


def test_a_range_too_narrow_for_the_samples_gives_those_it_has() -> None:
    given = planned(searcher="random", num_samples=500, beta={"min": 1, "max": 1.01}, teachers=[["a"]])
    assert len(plan_trials(given, teacher_subsets(given))) == 11
