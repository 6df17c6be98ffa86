"""The verbs of the command line as functions, for a notebook, or a script with or without a main guard.

Each checks the recipe first and raises InputError with one line per fault. A verb that needs Ray uses the cluster that this
process is connected to, or RAY_ADDRESS, or starts one on this machine for as long as it works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aft_ray.cluster.address import connected_ray
from aft_ray.cluster.starting import Cluster
from aft_ray.commands.check import check, open_setup
from aft_ray.commands.environment import helpers_of, ray_cluster, set_environment
from aft_ray.commands.functions.results import Exported, Result, Run, Scores, Search, Study
from aft_ray.commands.own_modules import find_own_modules
from aft_ray.commands.signals import signals_as_before
from aft_ray.recipe import config
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.study.config import Study as LoadedStudy


def load(recipe: str | Path | Mapping[str, Any] | Recipe, changes: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or from its content, or another recipe. changes: values by dotted key, or `train.steps=100`.

    Raises InputError with one line for every unknown, missing or wrong key.
    """
    if isinstance(changes, Mapping):
        return config.override(load(recipe), changes) if changes else load(recipe)
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(mode="json")
    if isinstance(recipe, Mapping):
        return config.load_content(recipe, changes)
    return config.load(recipe, changes)


def prepare(recipe: Recipe, *, overwrite: bool = False) -> Result:
    """Splits the data set and writes its samples. The table counts them by class and split."""
    from aft_ray.datasets.prepare import prepare

    _ready(recipe)
    check(recipe, "prepare")
    with helpers_of(recipe, "prepare", _cluster) as helpers:
        manifests = prepare(recipe, overwrite=overwrite, helpers=helpers)
    counts = {split: manifest["samples_per_class"] for split, manifest in manifests.items()}
    classes = manifests["train"]["classes"]
    rows = [{"class": name, **{split: counts[split][name] for split in counts}} for name in classes]
    return Result(f"Samples in {recipe.workspace}", rows)


def extract(recipe: Recipe, *, overwrite: bool = False) -> Result:
    """Runs every teacher over the samples once. The table has the teachers and their new shards."""
    _ready(recipe)
    check(recipe, "extract")
    from aft_ray.extraction.extract import extract

    made = extract(recipe, overwrite=overwrite, cluster=partial(_cluster, recipe, "extract"))
    return Result(
        f"Features in {recipe.workspace}", [{"teacher": name, "new shards": new} for name, new in made.items()]
    )


def rank(recipe: Recipe) -> Result:
    """How much each combination of teachers knows of the labels, the best linear head first."""
    _ready(recipe)
    setup = open_setup(recipe, "rank")
    from aft_ray.search.rank import rank

    rows = [{**row, "teachers": ", ".join(row["teachers"])} for row in rank(setup).rows]
    return Result(f"Teachers of {recipe.workspace}", rows)


def train(recipe: Recipe) -> Run:
    """Trains the student with the recipe's regularizer, unless the run is finished. The table has its evaluations."""
    _ready(recipe)
    setup = open_setup(recipe, "train")
    from aft_ray.training.runs import RunDirectory
    from aft_ray.training.train import needs_ray, train

    cluster: Cluster = partial(_cluster, recipe, "train") if needs_ray(recipe) else nullcontext
    place = train(setup, cluster=cluster)
    history = RunDirectory(place).history()
    accuracy = history[-1]["test_accuracy"]
    return Run(f"Run {place}", history, str(place), history[-1]["test_loss"] if accuracy is None else accuracy)


def search(recipe: Recipe) -> Search:
    """Compares settings and methods on validation, and the best of each on test. The table has each method at its best."""
    _ready(recipe)
    setup = open_setup(recipe, "search")
    from aft_ray.search.search import search

    search(setup, cluster=partial(_cluster, recipe, "search"))
    return found_search(recipe)


def found_search(recipe: Recipe) -> Search:
    """The search of the recipe as it is in the workspace."""
    from aft_ray.report.reading import findings, read_trials
    from aft_ray.search.search import read_winner
    from aft_ray.store.workspace import Workspace

    found, place = findings(recipe), Workspace.at(recipe.workspace).search(recipe.run)
    rows = [
        {
            "method": entry.title,
            "beta": entry.beta if entry.teachers else None,
            "teachers": ", ".join(entry.teachers),
            **dict(entry.others),
            "seeds": entry.num_seeds,
            "validation": entry.validation,
            "test": entry.test,
            "standard error": entry.test_se,
            "gain": entry.gain,
            "p": entry.p_value,
        }
        for entry in found.entries
    ]
    rows += [
        {
            "method": head.title,
            "teachers": head.teacher,
            "validation": head.val_accuracy,
            "test": head.test_accuracy,
        }
        for head in found.heads
    ]
    best = config.override(read_winner(place), {"workspace": recipe.workspace})
    return Search(f"Search {place}", rows, (found.headline, *found.remarks), best, read_trials(place))


def study(
    study: str | Path | Mapping[str, Any],
    changes: Mapping[str, Any] | Sequence[str] = (),
    *,
    at_once: int | None = None,
) -> Study:
    """Compares methods over the settings of a study, a YAML file or its content. The table has each method's mean.

    changes: of every setting, by dotted key, or `train.steps=100`. at_once: settings to run side by side; None as the cluster has
    room. Raises InputError with one line for each fault of a setting, also after the others have run.
    """
    import json

    from aft_ray.commands.study import GOES_ON, recipes_of, run_settings, runnable
    from aft_ray.study.config import load_study

    if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
        raise InputError(
            f"at_once is {at_once!r}; it must be a whole number above 0, or None for as many as have room."
        )
    if isinstance(changes, Mapping):
        changes = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    loaded = load_study(study, changes)
    if not connected_ray():
        set_environment()
    names, _ = runnable(loaded)
    if names:
        with _cluster(*recipes_of(loaded, names)):
            faults = run_settings(loaded, names, at_once)
        if faults:
            raise InputError([*faults, GOES_ON])
    return found_study(loaded)


def found_study(study: LoadedStudy) -> Study:
    """The study as it is on disk; writes its page."""
    from aft_ray.study.averages import means
    from aft_ray.study.found import read_study
    from aft_ray.study.grids import remarks
    from aft_ray.study.page import headline
    from aft_ray.study.report import mean_row, report_study, result_rows

    found = read_study(study)
    averages = means(found)
    told = (headline(averages, found), *remarks(found))
    settings = [row for one in found for row in result_rows(one)]
    return Study(f"Study {study.place}", [mean_row(mean) for mean in averages], told, report_study(study), settings)


def evaluate(recipe: Recipe, split: str = "test") -> Scores:
    """The finished run `recipe.run` on one split, class by class."""
    _ready(recipe)
    from aft_ray.export.evaluate import evaluate
    from aft_ray.export.scores import SCORES

    found = evaluate(recipe, split)
    scores = {name: found[name] for name in SCORES if found.get(name) is not None}
    title = f"Run '{recipe.run}' on {found['num_samples']} samples of split {split}"
    return Scores(title, found["per_class"], scores)


def export(recipe: Recipe, *, onnx: bool = False, push_to_hub: str | None = None, public: bool = False) -> Exported:
    """Writes the finished run's student as its own library loads it, with a model card.

    push_to_hub: a repository of the model hub to upload it to, with the token of HF_TOKEN. public: whether a repository that
    the push makes is public.
    """
    _ready(recipe)
    from aft_ray.export.export import export
    from aft_ray.export.hub import check_push, push

    if push_to_hub is not None:
        check_push(push_to_hub)
    place = export(recipe, onnx=onnx, repository=push_to_hub)
    if push_to_hub is not None:
        push(place, push_to_hub, public=public)
    rows = [{"file": name, "bytes": num_bytes} for name, num_bytes in sorted(place.sizes().items())]
    return Exported(f"Exported to {place}", rows, str(place))


def _ready(recipe: Recipe) -> None:
    """Ray's environment, before anything imports it, and the classes of the user's own that the recipe names."""
    if not connected_ray():
        set_environment()
    find_own_modules(recipe)


@contextmanager
def _cluster(recipe: Recipe, verb: str, *others: Recipe) -> Iterator[None]:
    """The cluster of this process, or one for as long as the context lasts."""
    if connected_ray():
        yield
        return
    with signals_as_before(), ray_cluster(recipe, verb, *others):
        yield
