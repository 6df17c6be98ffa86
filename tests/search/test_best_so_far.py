"""A round of trials: its line shows the best so far, not the last; a trial that has written all is over."""

from __future__ import annotations

from pathlib import Path

from aft_ray.commands.check import open_setup
from aft_ray.search.proposals import Listed
from aft_ray.search.rounds import Round
from aft_ray.search.search import plan_search
from aft_ray.search.shared import Shared
from aft_ray.search.space import spaces
from aft_ray.search.trial_data import TrialData
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from tests.helpers.training import DATA, made_workspace


def test_the_best_of_the_trials_that_are_over_is_kept_with_its_setting(tmp_path: Path) -> None:
    changes = {"search.compare": ["none", "aft"], "search.beta": [1], "train.steps": 2, "train.evaluate_every": 1}
    given = made_workspace(tmp_path, changes)
    setup, place = open_setup(given, "search"), Workspace.at(tmp_path).search("main")
    trials = plan_search(setup)
    shared, data = Shared(given, setup.stores, place), TrialData([given], setup.stores, start=lambda: None)
    of = Round(shared, data, Listed(list(trials)), spaces(given, [("one",)]), "search", [])
    assert of.best_so_far() == ""
    scores = {}
    for trial in trials[:3]:
        directory, recipe = of.shared.directory(trial.name), of.shared.recipe_of(trial)
        directory.claim_trial(trial, 0, recipe, of.shared.inputs_of(recipe))
        history = fit(recipe, DATA, directory=directory.place, report=lambda metrics, state: None, evaluate_test=False)
        directory.end("finished")
        scores[trial.setting.in_words()] = max(line["val_accuracy"] for line in history)
        of.note_best(trial.name)
        top = max(scores.values())
        value, _, setting = of.best_so_far().removeprefix("best ").partition(": ")
        assert value == f"{top:.3f}" and scores[setting] == top


def test_a_trial_whose_process_died_after_its_last_write_is_over(tmp_path: Path) -> None:
    given = made_workspace(tmp_path, {"search.compare": ["none"], "search.seeds": 2, "train.steps": 2})
    setup, place = open_setup(given, "search"), Workspace.at(tmp_path).search("main")
    first, second = plan_search(setup)
    shared, data = Shared(given, setup.stores, place), TrialData([given], setup.stores, start=lambda: None)
    of = Round(shared, data, Listed([first, second]), spaces(given, [("one",)]), "search", [])
    directory, recipe = of.shared.directory(first.name), of.shared.recipe_of(first)
    directory.claim_trial(first, 0, recipe, of.shared.inputs_of(recipe))
    fit(recipe, DATA, directory=directory.place, report=lambda metrics, state: None, evaluate_test=False)
    assert of.next() == second and directory.outcome() == {"status": "finished", "error": None}
