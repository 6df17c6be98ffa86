"""aft-ray list: the names that a recipe can use, and the runs and searches of a workspace."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aft_ray.commands.environment import workspace_at
from aft_ray.commands.tables import console, print_table
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.report.listing import RunFacts, SearchFacts
    from aft_ray.store.workspace import Workspace
    from aft_ray.training.best import Measure

SUMMARY = "list the names that a recipe can use, or the runs and searches of a workspace"
PLACE = "for runs and searches: a recipe, or a workspace's directory or URL"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=(*KINDS, *IN_WORKSPACE))
    parser.add_argument("place", metavar="RECIPE|WORKSPACE", nargs="?", help=PLACE)


def run(parsed: argparse.Namespace) -> None:
    if parsed.kind in KINDS and parsed.place is None:
        KINDS[parsed.kind]()
    elif parsed.kind in IN_WORKSPACE and parsed.place is not None:
        IN_WORKSPACE[parsed.kind](workspace_at(parsed.place))
    elif parsed.place is None:
        raise InputError(f"aft-ray list {parsed.kind} needs a recipe or a workspace.")
    else:
        raise InputError(f"aft-ray list {parsed.kind} takes no further argument, got {parsed.place!r}.")


def list_datasets() -> None:
    from aft_ray.datasets import NAMED, SOURCES
    from aft_ray.recipe.sections import DatasetConfig

    rows: list[list[Any]] = []
    for name, found in NAMED.items():
        here = "no" if found.missing(DatasetConfig(name=name)) else "yes"
        sizes = " + ".join(f"{count:,}" for count in found.num_samples)
        rows.append([name, found.modality, found.num_classes, sizes, found.licence, here, found.origin])
    columns = ["name", "modality", "classes", "samples", "licence", "here", "from"]
    print_table("Named data sets: samples are train + test", columns, rows)
    console.print("not here: 'aft-ray prepare' names the download and its place", soft_wrap=True)
    console.print(f"your own: dataset.source is one of {', '.join(SOURCES)}", soft_wrap=True)


def list_regularizers() -> None:
    from aft_ray.regularizers import REGULARIZERS

    rows = [
        [name, (kind.__doc__ or "").partition("\n")[0], ", ".join(f"{beta:g}" for beta in kind.betas)]
        for name, kind in REGULARIZERS.items()
    ]
    print_table("Regularizers", ["name", "summary", "beta, by default"], rows)
    console.print(
        "your own: regularizer.name is MODULE:Class, a subclass of aft_ray.regularizers.Regularizer", soft_wrap=True
    )


def list_students() -> None:
    from aft_ray.models.students import KINDS, OWN

    rows = [[kind.form, kind.modality, kind.summary] for kind in (*KINDS.values(), OWN)]
    print_table("Students", ["model", "reads", "what it is"], rows)


def list_teachers() -> None:
    from aft_ray.models.teachers import FORMS

    print_table("Teachers", ["model", "reads", "what it is"], FORMS)


KINDS = {
    "teachers": list_teachers,
    "students": list_students,
    "datasets": list_datasets,
    "regularizers": list_regularizers,
}


def list_runs(workspace: Workspace) -> None:
    from aft_ray.report.listing import list_runs, title_of

    found = list_runs(workspace)
    if not found:
        console.print(f"{workspace} has no runs. 'aft-ray train' makes one.", soft_wrap=True)
        return
    rows = []
    for facts in found:
        state = "damaged" if facts.fault else "finished" if facts.is_finished else f"step {facts.step}/{facts.steps}"
        scores = [_score(facts.measure, facts.validation), _score(facts.measure, facts.test)]
        rows.append([facts.name, title_of(facts.method, facts.beta), *scores, _when(facts.date), state])
    heads = [_measure(found).head(split) for split in ("validation", "test")]
    print_table(f"Runs in {workspace}", ["run", "method", *heads, "written", "state"], rows)
    for facts in found:
        if facts.fault:
            console.print(facts.fault, soft_wrap=True)
    console.print(f"side by side: aft-ray compare {workspace}/runs/NAME {workspace}/runs/NAME", soft_wrap=True)


def list_searches(workspace: Workspace) -> None:
    from aft_ray.report.listing import list_searches

    found = list_searches(workspace)
    if not found:
        console.print(f"{workspace} has no searches. 'aft-ray search' makes one.", soft_wrap=True)
        return
    rows = [
        [
            facts.name,
            "damaged" if facts.fault else ", ".join(f"{count} {status}" for status, count in facts.statuses.items()),
            _score(facts.measure, facts.validation),
            facts.best or "-",
            _when(facts.date),
        ]
        for facts in found
    ]
    columns = ["search", "trials", _measure(found).head("best validation"), "winner", "written"]
    print_table(f"Searches in {workspace}", columns, rows)
    for facts in found:
        if facts.fault:
            console.print(facts.fault, soft_wrap=True)


def _measure(found: Sequence[RunFacts] | Sequence[SearchFacts]) -> Measure:
    """The measure of the workspace's task, from a run or search with a score: a damaged or new one does not know it."""
    return next((facts.measure for facts in found if facts.validation is not None), found[0].measure)


def _score(measure: Measure, value: float | None) -> str:
    return "-" if value is None else measure.number(value)


def _when(date: datetime | None) -> str:
    return f"{date:%Y-%m-%d %H:%M}" if date else "-"


IN_WORKSPACE = {"runs": list_runs, "searches": list_searches}
