"""The page says which keys were tuned for which method, and warns where a choice lies at the end of its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aft_ray.study.config import load_study
from aft_ray.study.found import Found, read_study
from aft_ray.study.grids import ends, remarks
from aft_ray.study.records import Record, write_record
from tests.helpers.report import trial
from tests.study.test_config import written


def searched(method: str, best: dict[str, Any], **grids: list[float]) -> list[dict[str, Any]]:
    """A search over each grid with the other keys at their best, and a final run at the best."""
    keys = {name.replace("__", "."): values for name, values in grids.items()}
    settings = [{**best, key: value} for key, values in keys.items() for value in values]
    found = []
    for stage, setting in [*(("search", one) for one in settings), ("final", best)]:
        score = 0.9 - sum(setting[key] != best[key] for key in best) / 10
        values = {"val_accuracy": score, "test_accuracy": score if stage == "final" else None}
        teachers = () if method == "none" else ("a",)
        row = trial(stage, method, setting["regularizer.beta"], teachers, **values)
        found.append({**row, **{key: value for key, value in setting.items() if key != "regularizer.beta"}})
    return found


def found_with(tmp_path: Path, *searches: list[dict[str, Any]], search: str = "{compare: [none, aft]}") -> list[Found]:
    study = load_study(written(tmp_path, ("search: {compare: [none, aft]}", f"search: {search}")))
    write_record(study.records, "digits-few", Record([], "", {}, {}, [], [row for rows in searches for row in rows]))
    return read_study(study)


def test_tuned_keys_are_named_with_their_methods_and_fixed_ones_too(tmp_path: Path) -> None:
    found = found_with(
        tmp_path,
        searched("none", {"regularizer.beta": 0.0, "train.steps": 20}, train__steps=[10, 20, 30]),
        searched("aft", {"regularizer.beta": 2.0, "train.steps": 20}, regularizer__beta=[1, 2, 3], train__steps=[10, 20, 30]),
        searched("kd", {"regularizer.beta": 2.0, "regularizer.learning_rate": 0.1}, regularizer__beta=[1, 2, 3]),
    )  # fmt: skip
    assert remarks(found) == [
        "Tuned on validation: train.steps for standard transfer, AFT; beta for every method but standard transfer.",
        "The same in every trial of a setting: train.learning_rate, regularizer.learning_rate (0.1 for KD).",
    ]


def test_a_choice_at_the_end_of_its_grid_is_a_warning(tmp_path: Path) -> None:
    searches = (
        searched(
            "aft",
            {"regularizer.beta": 3.0, "train.learning_rate": 0.1},
            regularizer__beta=[1, 3],
            train__learning_rate=[0.1, 0.3],
        ),
        searched("kd", {"regularizer.beta": 0.0}, regularizer__beta=[0, 1]),
    )  # fmt: skip
    told = remarks(found_with(tmp_path, *searches))
    assert told[-1] == (
        "At the end of their grid, so that values beyond may be better: beta of AFT (the highest in digits-few);"
        " train.learning_rate of AFT (the lowest in digits-few). Widen search.beta or search.space."
    ), "and below KD's zero there is nothing"
    free = "{beta: {min: 1, max: 3}, searcher: random, num_samples: 2}"
    found = found_with(tmp_path, searches[0], search=free)
    assert ends(found, "aft").highest == [] and "beta of AFT" not in remarks(found)[-1]
