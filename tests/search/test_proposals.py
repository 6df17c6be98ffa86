"""What Optuna learns from is told by the search, and a search that starts again goes on with the same proposals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aft_ray.search.proposals import Learned, Listed
from aft_ray.search.space import Setting, Trial, plan_trials, spaces, teacher_subsets
from tests.search.test_space import planned


def learned(known: list[Trial], **section: Any) -> Learned:
    given = planned(compare=["none", "aft"], searcher="optuna", **section)
    return Learned(given, spaces(given, teacher_subsets(given)), known)


SECTION: dict[str, Any] = {"beta": {"min": 0.1, "max": 1000}, "num_samples": 24, "space": {"train.steps": [10, 20]}}


def worth(setting: Setting) -> float:
    """Best at beta 10 with teachers a and c."""
    return -abs(math.log10(setting.beta or 1) - 1) - 0.5 * len({*setting.teachers} ^ {"a", "c"})


def ask_all(proposals: Learned, until: int | None = None) -> list[Trial]:
    found: list[Trial] = []
    while len(found) != until and (trial := proposals.next()) is not None:
        found.append(trial)
        proposals.tell(trial, worth(trial.setting))
    return found


def test_listed_trials_come_in_their_order() -> None:
    given = planned(beta=[1], teachers="singles")
    expected = plan_trials(given, teacher_subsets(given))
    proposals = Listed(expected)
    assert [proposals.next() for _ in range(4)] == [*expected, None]


@pytest.mark.parametrize("subsets_as", ["choice", "bits"])
def test_it_learns_each_method_from_its_own_trials_and_repeats_nothing(subsets_as: str) -> None:
    found = ask_all(learned([], subsets_as=subsets_as, **SECTION))
    assert len({trial.setting for trial in found}) == len(found)
    assert sum(trial.setting.method == "none" for trial in found) == 2, "there are two settings, by train.steps"
    of_aft = [trial.setting for trial in found if trial.setting.method == "aft"]
    assert len(of_aft) == 24 and all(0.1 <= setting.beta <= 1000 and setting.teachers for setting in of_aft)
    early, late = of_aft[:8], of_aft[-8:]
    assert sum(map(worth, late)) > sum(map(worth, early)), "it got better"


@pytest.mark.parametrize("subsets_as", ["choice", "bits"])
def test_a_search_that_starts_again_proposes_what_it_would_have(subsets_as: str) -> None:
    undisturbed = ask_all(learned([], subsets_as=subsets_as, **SECTION))
    before = ask_all(learned([], subsets_as=subsets_as, **SECTION), until=15)
    after = ask_all(learned(before, subsets_as=subsets_as, **SECTION))
    assert after == undisturbed


def test_several_seeds_count_as_one_setting_by_their_mean_and_failures_are_told() -> None:
    proposals = learned([], beta=[1, 2, 3], teachers=[["a"]], seeds=2, num_samples=2)
    found = []
    while (trial := proposals.next()) is not None:
        found.append(trial)
        proposals.tell(trial, None if trial.setting.method == "none" else float(trial.seed))
    assert [trial.seed for trial in found] == [0, 1] * 3, "none once, aft twice"
    values = [trial.value for trial in proposals.studies["aft"].study.trials if trial.state.name == "COMPLETE"]
    assert values == [0.5, 0.5]
    assert {trial.state.name for trial in proposals.studies["none"].study.trials} == {"FAIL"}
