"""search: beta, combinations of teachers and any other key over one cache, on Ray Tune; then the best of each method anew.

Features are extracted once for all teachers and the splits are decoded once; every trial reads its teachers' columns from
Ray's shared memory. A trial is a training with some keys replaced; each of its evaluations reaches scheduler and searcher.
Trials are compared on validation; only the final runs see the test split. All that is known lies in the trials'
directories: the same command goes on after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from aft_ray.cluster.lease import lease
from aft_ray.recipe.config import Recipe, dump, load_text, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import damaged
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.own_class import import_class, own_faults
from aft_ray.recipe.reference import schema_line
from aft_ray.recipe.search_section import Range
from aft_ray.search.best import best_of_each, best_settings, winner
from aft_ray.search.check import final_faults
from aft_ray.search.kept import drop_students
from aft_ray.search.proposals import Learned, Listed, Proposals
from aft_ray.search.rank import rank
from aft_ray.search.space import (
    Setting,
    Space,
    Trial,
    final_trials,
    finalist_trials,
    plan_trials,
    spaces,
    teacher_subsets,
    top_by_rank,
)
from aft_ray.search.teacher_heads import heads_on_test, stores_of_heads, write_heads
from aft_ray.search.trial import Shared, data_key
from aft_ray.search.trials import TrialRow, claim_search, search_id
from aft_ray.search.tuning import Round, delete_state_of_tune
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.inputs.order import has_label
from aft_ray.training.inputs.stores import Setup, sample_faults
from aft_ray.training.owner import check_owner
from aft_ray.training.train import decide_streaming

OWNER = re.compile(r"^# search_id: (\w+)$", re.MULTILINE)


def search(setup: Setup) -> list[TrialRow]:
    """Runs the search and its final runs. Returns the rows of `trials.parquet`. Trials that are over are not run again.
    If another command runs this search, waits for it.

    Raises InputError, before a trial starts, if the samples do not suit a student or the splits do not fit in memory.
    """
    setup = replace(setup, recipe=decide_streaming(setup.recipe, setup.stores))
    recipe, subsets = setup.recipe, _subsets(setup)
    if faults := final_faults(recipe):
        raise InputError(faults)
    with_heads = stores_of_heads(recipe)
    with lease(Workspace.at(recipe.workspace), f"searches/{recipe.run}"):
        rows = _search(setup, subsets)
        if with_heads:
            write_heads(Workspace.at(recipe.workspace).search(recipe.run), heads_on_test(recipe, with_heads))
        return rows


def _search(setup: Setup, subsets: Sequence[tuple[str, ...]]) -> list[TrialRow]:
    recipe, stores = setup.recipe, setup.stores
    data = _load(recipe, stores)
    place = Workspace.at(recipe.workspace).search(recipe.run)
    delete_state_of_tune(place)  # of killed commands, also where no trial is left to run
    shared = Shared(recipe, stores, place, {key: ray.put(found) for key, found in data.items()})
    methods = spaces(recipe, subsets)
    rounds = [[space] for space in methods] if recipe.search.scheduler == "pbt" else [methods]
    rows: list[TrialRow] = []
    for group in rounds:
        rows += Round(shared, _proposals(shared, group, subsets), group, "search", rows).run()
    if recipe.search.finalists is not None:
        rows += Round(shared, Listed(_of_finalists(recipe, rows)), methods, "finalists", rows).run()
    best = best_settings(rows, recipe.search.metric, _num_validation(data))
    if best:
        write_winner(recipe, place, Setting(*winner(best).key))
    chosen = best_of_each(recipe.search.final.of, rows, recipe.search.metric)
    finals = [trial for choice in chosen for trial in final_trials(recipe, Setting(*choice.key))]
    if recipe.search.final.train_on == "train+validation":
        joined = {key: ray.put(found.with_validation_in_train()) for key, found in data.items()}
        shared = replace(shared, data=joined, with_validation=True)
    rows = Round(shared, Listed(finals), methods, "finals", rows).run(of_all=True)
    drop_students(recipe, place, rows, {choice.key for choice in chosen})
    return rows


def _of_finalists(recipe: Recipe, rows: Sequence[TrialRow]) -> list[Trial]:
    """The further trials of the settings that are best after one seed."""
    search = recipe.search
    best = best_of_each(search.final.of, rows, search.metric, keep=search.finalists or 1)
    return [trial for choice in best for trial in finalist_trials(recipe, Setting(*choice.key))]


def plan_search(setup: Setup) -> list[Trial]:
    """The trials that `search` would run before the final ones; for Optuna, as many random draws."""
    return plan_trials(setup.recipe, _subsets(setup))


def _subsets(setup: Setup) -> list[tuple[str, ...]]:
    """The combinations of teachers to try."""
    count = top_by_rank(setup.recipe)
    if count is None:
        return teacher_subsets(setup.recipe)
    return [tuple(row["teachers"]) for row in rank(setup).rows[:count]]


def _load(recipe: Recipe, stores: Mapping[str, Store]) -> dict[str, Data]:
    """The data of every searched student; students that read samples alike share one decoded copy."""
    data: dict[str, Data] = {}
    for variant in _students(recipe):
        if faults := sample_faults(variant, stores["train"].manifest):
            raise InputError(faults)
        key = data_key(variant)
        if key not in data:
            data[key] = load_data(variant, stores)
    return data


def _students(recipe: Recipe) -> list[Recipe]:
    """The recipe with every combination of the student's searched values."""
    own = {key: values for key, values in recipe.search.space.items() if key.startswith("student.")}
    if ranged := [key for key, values in own.items() if isinstance(values, Range)]:
        raise InputError(f"search.space.{ranged[0]} must be a list: samples are decoded for each value of it.")
    settings = Space("none", {"regularizer.beta": (0.0,), "teachers": ((),), **own}).grid()
    return [override(recipe, dict(setting.others)) for setting in settings]


def _proposals(shared: Shared, group: Sequence[Space], subsets: Sequence[tuple[str, ...]]) -> Proposals:
    recipe = shared.recipe
    searcher = recipe.search.searcher
    if searcher == "optuna" or is_own_class(searcher):
        kind: Any = Learned if searcher == "optuna" else import_class(searcher, "search.searcher", ("next", "tell"))
        facts = [shared.directory(name).facts() for name in (shared.place / "trials").folders()]
        known = sorted((f for f in facts if f and f["stage"] == "search"), key=lambda found: found["number"])
        with own_faults(searcher, "search.searcher"):
            return kind(recipe, group, [Trial.of(found) for found in known])
    methods = {space.method for space in group}
    return Listed([trial for trial in plan_trials(recipe, subsets) if trial.setting.method in methods])


def _num_validation(data: Mapping[str, Data]) -> int:
    """Labelled samples that settings are compared on."""
    validation = next(iter(data.values())).validation
    return int(has_label(validation.labels).sum()) if validation is not None else 0


def read_winner(place: Directory) -> Recipe:
    """The recipe of `best.yaml`. Raises InputError if a search has not written it."""
    what, way_out = f"{place}/best.yaml", "Run 'aft-ray search' again."
    try:
        text = place.read("best.yaml").decode()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise damaged(what, ["it is missing or no text"], way_out) from error
    owner = OWNER.search(text)
    check_owner(owner[1] if owner else None, search_id(place), what, way_out)
    try:
        return load_text(text)
    except InputError as error:
        raise damaged(what, [fault.rstrip(".") for fault in error.faults], way_out) from error


def write_winner(recipe: Recipe, place: Directory, setting: Setting) -> None:
    """`best.yaml`: the recipe with the setting that won, for `train`."""
    changes = {"train.num_workers": recipe.train.num_workers, "run": f"{recipe.run}-{setting.name}"[:100]}
    best = override(Trial("final", setting, recipe.train.seed).recipe(recipe), changes)
    place.write("best.yaml", f"{schema_line()}# search_id: {claim_search(place)}\n{dump(best)}".encode())
