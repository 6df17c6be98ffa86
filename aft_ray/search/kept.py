"""Which students a search keeps when it is over: a trial's scores take little room, its weights much."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.printable import counted, tell
from aft_ray.search.trials import SettingKey, TrialDirectory, TrialRow, setting_key
from aft_ray.store.files import Directory


def drop_students(recipe: Recipe, place: Directory, rows: Sequence[TrialRow], chosen: Collection[SettingKey]) -> None:
    """Deletes the students that `search.keep_students` does not keep, and says so.

    place, rows: of the search. chosen: settings with final runs; the report reads their trials' students too.
    """
    keep = recipe.search.keep_students
    if keep == "all":
        return
    dropped = [row["trial"] for row in rows if keep == "none" or setting_key(row) not in chosen]
    count = sum(TrialDirectory(place / "trials" / name).drop_student() for name in dropped)
    if count:
        tell(
            f"deleted the students of {counted(count, 'trial')}, as search.keep_students={keep} says; their scores stay"
        )
