"""search: beta, combinations of teachers and any other key over one cache, on Ray Tune; then the best of each method anew.

Features are extracted once for all teachers and the splits are decoded once, when the first trial has to run; every trial reads
its teachers' columns from Ray's shared memory. A trial is a training with some keys replaced; each of its evaluations reaches
scheduler and searcher.
Trials are compared on validation; only the final runs see the test split. All that is known lies in the trials'
directories: the same command goes on after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from aft_ray.cluster.lease import lease
from aft_ray.cluster.starting import Cluster, start_once
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
from aft_ray.search.rounds import Round, delete_state_of_tune
from aft_ray.search.shared import Shared
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
from aft_ray.search.teacher_heads import stores_of_heads, update_heads
from aft_ray.search.trial_data import TrialData
from aft_ray.search.trials import TrialDirectory, TrialRow, claim_search, search_id
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.stores import Setup, sample_faults
from aft_ray.training.owner import check_owner
from aft_ray.training.train import decide_streaming

OWNER = re.compile(r"^# search_id: (\w+)$", re.MULTILINE)


def search(setup: Setup, *, cluster: Cluster = nullcontext) -> list[TrialRow]:
    """Runs the search and its final runs. Returns the rows of `trials.parquet`. Trials that are over are not run again.
    If another command runs this search, waits for it.

    cluster: is called if a trial has to run; by default Ray runs already.
    Raises InputError, before a trial starts, if the samples do not suit a student or the splits do not fit in memory.
    """
    subsets, students = _subsets(setup), _students(setup)
    with_heads = stores_of_heads(setup.recipe)
    place = Workspace.at(setup.recipe.workspace).search(setup.recipe.run)
    with lease(Workspace.at(setup.recipe.workspace), f"searches/{setup.recipe.run}"):
        with start_once(cluster) as start:
            setup = replace(setup, recipe=_with_streaming(setup, place, start))
            decided = {"train.streaming": setup.recipe.train.streaming}
            data = TrialData([override(student, decided) for student in students], setup.stores, start)
            rows = _search(Shared(setup.recipe, setup.stores, place), data, subsets)
        if with_heads:
            update_heads(place, setup.recipe, with_heads)
        return rows


def _with_streaming(setup: Setup, place: Directory, start: Callable[[], None]) -> Recipe:
    """The recipe with `train.streaming` as the search's trials have it; before the first of them, by the memory of the cluster,
    which is started.

    Raises InputError if final runs cannot be trained on samples that are streamed.
    """
    recipe = setup.recipe
    if recipe.train.streaming is None:
        trials = [place / "trials" / name for name in (place / "trials").folders()]
        claimed = next((trial for trial in trials if TrialDirectory(trial).inputs()), None)
        if claimed is None:
            start()
        recipe = decide_streaming(recipe, setup.stores, claimed)
    if faults := final_faults(recipe):
        raise InputError(faults)
    return recipe


def _search(shared: Shared, data: TrialData, subsets: Sequence[tuple[str, ...]]) -> list[TrialRow]:
    recipe, place = shared.recipe, shared.place
    delete_state_of_tune(place)  # of killed commands, also where no trial is left to run
    methods = spaces(recipe, subsets)
    rounds = [[space] for space in methods] if recipe.search.scheduler == "pbt" else [methods]
    rows: list[TrialRow] = []
    for group in rounds:
        rows += _run(Round(shared, data, _proposals(shared, group, subsets), group, "search", rows))
    if recipe.search.finalists is not None:
        rows += _run(Round(shared, data, Listed(_of_finalists(recipe, rows)), methods, "finalists", rows))
    best = best_settings(rows, recipe.search.metric, _num_validation(shared.stores["validation"]))
    if best:
        write_winner(recipe, place, Setting(*winner(best).key))
    chosen = best_of_each(recipe.search.final.of, rows, recipe.search.metric)
    finals = [trial for choice in chosen for trial in final_trials(recipe, Setting(*choice.key))]
    of_finals = replace(shared, with_validation=recipe.search.final.train_on == "train+validation")
    rows += _run(Round(of_finals, data, Listed(finals), methods, "finals", rows))
    drop_students(recipe, place, rows, {choice.key for choice in chosen})
    return rows


def _run(of: Round) -> list[TrialRow]:
    """Runs the trials of a round that are not over; returns the rows of all its trials.

    Raises KeyboardInterrupt after Ctrl-C, and ClusterError if Tune returns before all trials are over.
    """
    with of.searcher_named():
        first = of.next()
    if first is not None:
        from aft_ray.search.tuning import run_trials  # Ray Tune takes a second to import

        run_trials(of, first)
        of.check_ended()
    return of.rows()


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


def _students(setup: Setup) -> list[Recipe]:
    """The recipe with every combination of the student's searched values.

    Raises InputError if the samples do not suit one of them.
    """
    recipe = setup.recipe
    own = {key: values for key, values in recipe.search.space.items() if key.startswith("student.")}
    if ranged := [key for key, values in own.items() if isinstance(values, Range)]:
        raise InputError(f"search.space.{ranged[0]} must be a list: samples are decoded for each value of it.")
    settings = Space("none", {"regularizer.beta": (0.0,), "teachers": ((),), **own}).grid()
    students = [override(recipe, dict(setting.others)) for setting in settings]
    for student in students:
        if faults := sample_faults(student, setup.stores["train"].manifest):
            raise InputError(faults)
    return students


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


def _num_validation(validation: Store) -> int:
    """Labelled samples that settings are compared on, by the manifests. A sample without features counts as labelled."""
    return max(0, validation.num_samples - validation.manifest.get("num_unlabelled", 0))


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
