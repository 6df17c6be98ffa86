"""A search keeps a directory for each trial, like a run's, and the table `trials.parquet` of all.

The directory is the only memory of a search. A search that was killed finds its finished trials there, and each other one
goes on from its last checkpoint.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pyarrow as pa
from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.json_files import damaged
from aft_ray.search.space import Trial
from aft_ray.store.files import Directory
from aft_ray.store.parquet import parsed_table, sealed_table
from aft_ray.training.best import best_line
from aft_ray.training.checkpoint import TrainingState, recipe_of
from aft_ray.training.owner import check_owner, marked, new_id, unmarked
from aft_ray.training.runs import SECTIONS, STUDENT, RunDirectory

TrialRow = dict[str, Any]

COLUMNS = {
    "trial": pa.string(),
    "stage": pa.string(),
    "regularizer.name": pa.string(),
    "regularizer.beta": pa.float64(),
    "teachers": pa.list_(pa.string()),
    "train.seed": pa.int64(),
    "seed": pa.int64(),
    "val_accuracy": pa.float64(),
    "val_loss": pa.float64(),
    "test_accuracy": pa.float64(),
    "test_loss": pa.float64(),
    "step": pa.int64(),
    "wall_time_s": pa.float64(),
    "num_gpus": pa.float64(),
    "status": pa.string(),
    "error": pa.string(),
}
"""Columns of every table; the keys of `search.space` come before `train.seed`."""


CLAIM = "search.json"
SEARCH_KEY = b"aft_ray.search"
"""Key in the metadata of `trials.parquet`, whose value is the search's id."""
NEEDED = ("trial", "stage", "regularizer.name", "regularizer.beta", "teachers", "val_accuracy", "status")
"""Columns of the tables of before, too."""


@with_config(ConfigDict(extra="allow"))
class TrialFacts(TypedDict):
    """trial.json. number: of its proposal; the first keys are its setting."""

    stage: str
    method: str
    beta: float
    teachers: list[str]
    others: dict[str, Any]
    seed: int
    number: NotRequired[int]
    wall_time_s: Annotated[float, Field(ge=0)]
    run_id: NotRequired[str]


@with_config(ConfigDict(extra="forbid"))
class Outcome(TypedDict):
    """outcome.json."""

    status: Literal["finished", "stopped", "failed"]
    error: str | None
    run_id: NotRequired[str]


@dataclass(frozen=True)
class TrialDirectory(RunDirectory):
    """One trial on disk: a run's directory, and

    trial.json: its setting, the number of its proposal, and the seconds it has taken so far;
    outcome.json: `status` (finished, stopped, failed) and `error`, once it is over.
    """

    kind: ClassVar[str] = "trial"
    named: ClassVar[str] = "search"

    def claim_trial(self, trial: Trial, number: int, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
        """Claims the directory for the trial, unless it has it already. Raises InputError if another trial is there."""
        if not self.check_claim(inputs):
            self.claim(recipe, inputs)
        if not self.facts():
            self.note(trial, number=number, wall_time_s=0.0)

    def note(self, trial: Trial, **facts: Any) -> None:
        """Replaces the trial's setting and some of the facts in `trial.json`."""
        known = self.facts()
        self.place.write_json("trial.json", marked({**known, **trial.to_json(), **facts}, self.run_id))

    def facts(self) -> dict[str, Any]:
        """The content of `trial.json`; empty without it. Raises InputError if it is damaged, or of another trial."""
        if not self.place.has("trial.json"):
            return {}
        facts: dict[str, Any] = self._read("trial.json", TrialFacts)
        trial = Trial.of(facts)
        # `pbt` changes the setting on the way; stage and seed stay.
        own = self.name.startswith(f"{trial.stage}-") and self.name.endswith(f"-seed{trial.seed}")
        if not own:
            raise damaged(f"{self.place}/trial.json", [f"it is of trial {trial.name}"], self.way_out)
        return facts

    @property
    def name(self) -> str:
        return self.place.path.rpartition("/")[2]

    @property
    def way_out(self) -> str:
        return f"Delete the directory {self.place}: the search runs this trial again."

    def end(self, status: str, error: str | None = None) -> None:
        """The trial is over; a training that will not go on needs no checkpoint."""
        self.place.write_json("outcome.json", marked({"status": status, "error": error}, self.run_id))
        if status != "failed":
            (self.place / "checkpoints").delete()

    def outcome(self) -> dict[str, Any] | None:
        """`status` and `error`, None while the trial is not over."""
        return self._read("outcome.json", Outcome) if self.place.has("outcome.json") else None

    def is_over(self) -> bool:
        """Whether it need not run again. Failed trials are run again."""
        if self.outcome() is None and self.is_finished:  # its process died before it could say so
            self.end("finished")
        outcome = self.outcome()
        return outcome is not None and outcome["status"] != "failed"

    def _read(self, name: str, shape: Any) -> dict[str, Any]:
        content = self.place.read_json(name, shape, self.way_out)
        return unmarked(content, self.run_id, f"{self.place}/{name}", self.way_out)

    def _settings(self) -> dict[str, Any]:
        """The trial's own: `pbt` changes some on the way."""
        told, facts = super()._settings(), self.facts()
        if not told or not facts:
            return told
        found = copy.deepcopy(told)
        setting = Trial.of(facts).setting
        for key, value in (("regularizer.beta", setting.beta), *setting.others):
            section, _, name = key.partition(".")
            if section in SECTIONS and "." not in name:
                found[section][name] = value
        return found

    def drop_student(self) -> bool:
        """Deletes the student's weights, first the file that makes them valid. Returns whether there were any."""
        had = self.is_finished
        if had:
            self.place.delete_file(STUDENT)
        (self.place / "student").delete()
        return had

    def reopen(self) -> None:
        """A failed trial is tried again."""
        if self.place.has("outcome.json"):
            self.place.delete_file("outcome.json")

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint, then deletes the one before: where `pbt` took over weights, that may be of a later step."""
        place = self.new_checkpoint(state.step)
        state.save(place)
        self._keep_checkpoint(place)

    def as_saved(self, trial: Trial) -> Trial:
        """The trial with the setting of its last checkpoint, which `pbt` changes on the way."""
        if (place := self.checkpoint()) is None:
            return trial
        recipe, values = recipe_of(place), trial.to_json()
        others = {key: _value_at(recipe, key, value) for key, value in values["others"].items()}
        changed = {"beta": recipe["regularizer"]["beta"], "teachers": recipe["teachers"], "others": others}
        return Trial.of({**values, **changed})

    def row(self, metric: str | None = None) -> TrialRow:
        """Its row of the table, with the scores of its best evaluation by `metric`."""
        facts, outcome, history = self.facts(), self.outcome(), self.history()
        trial = Trial.of(facts)
        row: TrialRow = dict.fromkeys(COLUMNS)
        row |= {
            "trial": self.name,
            "stage": trial.stage,
            "regularizer.name": trial.setting.method,
            "regularizer.beta": trial.setting.beta,
            "teachers": list(trial.setting.teachers),
            "train.seed": trial.seed,
            "seed": trial.seed,
            "wall_time_s": facts["wall_time_s"],
            "num_gpus": facts.get("num_gpus", 0.0),
            **(outcome or {"status": "running"}),
            **dict(trial.setting.others),
        }
        if history and row["status"] != "failed":
            best = best_line(history, metric)
            row |= {key: best[key] for key in ("val_accuracy", "val_loss", "step")}
            row |= {key: history[-1].get(key) for key in ("test_accuracy", "test_loss")}
        return row


def _value_at(recipe: Mapping[str, Any], key: str, default: Any) -> Any:
    """The value of a dotted key of a recorded recipe, which leaves out keys that do not change numbers."""
    found: Any = recipe
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def run_at(place: Directory) -> RunDirectory:
    """The run or the trial that lies at `place`."""
    return TrialDirectory(place) if place.has("trial.json") else RunDirectory(place)


class Clock:
    """Seconds that a trial has taken, in earlier processes too."""

    def __init__(self, before: float) -> None:
        self.before, self.started = before, time.perf_counter()

    def read(self) -> float:
        return self.before + time.perf_counter() - self.started


class _Claim(TypedDict):
    """search.json."""

    search_id: str


def is_search(place: Directory) -> bool:
    """Whether a search has written there."""
    return any(place.has(name) for name in (CLAIM, "trials.parquet", "trials"))


def search_id(search: Directory) -> str | None:
    """The id in the search's files; None if nobody has claimed its directory."""
    if not search.has(CLAIM):
        return None
    return str(search.read_json(CLAIM, _Claim, "Delete it and run 'aft-ray search' again.")["search_id"])


def claim_search(search: Directory) -> str:
    """The id in the search's files, drawn the first time."""
    found = search_id(search)
    if found is None:
        found = new_id()
        search.write_json(CLAIM, {"search_id": found})
    return found


def write_table(search: Directory, rows: Sequence[TrialRow]) -> None:
    """`trials.parquet`."""
    write_sealed(search, "trials.parquet", as_table(rows))


def write_sealed(search: Directory, name: str, table: pa.Table) -> None:
    """A small table of the search, with its id and a digest beside its own metadata."""
    metadata = {**(table.schema.metadata or {}), SEARCH_KEY: claim_search(search).encode()}
    search.write(name, sealed_table(table, metadata))


def read_table(search: Directory) -> list[TrialRow]:
    """The rows of `trials.parquet`; empty if the search has not written it. Raises InputError if it is no such table."""
    table = read_sealed(search, "trials.parquet", COLUMNS, NEEDED)
    return [] if table is None else table.to_pylist()


def read_sealed(
    search: Directory, name: str, columns: Mapping[str, pa.DataType], needed: Iterable[str]
) -> pa.Table | None:
    """A table of the search, as `parsed_table` checks it; None if it has not been written.

    Raises InputError if it is damaged or of another search.
    """
    if not search.has(name):
        return None
    way_out = "Run 'aft-ray search' again: it writes the table anew."
    what = f"{search}/{name}"
    table = parsed_table(search.read(name), columns, needed, what, way_out)
    found = (table.schema.metadata or {}).get(SEARCH_KEY)
    check_owner(found.decode(errors="replace") if found else None, search_id(search), what, way_out)
    return table


def as_table(rows: Sequence[TrialRow]) -> pa.Table:
    """One column for each of COLUMNS and each searched key; values of several types in one column become JSON."""
    searched = sorted({key for row in rows for key in row} - set(COLUMNS))
    names = [*COLUMNS]
    names[names.index("train.seed") : names.index("train.seed")] = searched
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, COLUMNS[name]) if name in COLUMNS else _column(values)
    return pa.table(columns)


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    if len(kinds) == 1 and kinds <= {int, float, bool, str}:
        return pa.array(values)
    return pa.array([None if value is None else json.dumps(value) for value in values])


def known_rows(trials: Directory, names: Iterable[str], metric: str | None) -> list[TrialRow]:
    """Rows of the trials that are on disk, in the order of `names`."""
    return [TrialDirectory(trials / name).row(metric) for name in names if (trials / name).has("trial.json")]


SettingKey: TypeAlias = tuple[str, float, tuple[str, ...], tuple[tuple[str, Any], ...]]


def setting_key(row: TrialRow) -> SettingKey:
    """The setting that trials share whose seeds alone differ: method, beta, teachers, other searched keys."""
    fixed = ("regularizer.name", "regularizer.beta", "train.seed")
    others = sorted((key, value) for key, value in row.items() if "." in key and key not in fixed and value is not None)
    return row["regularizer.name"], row["regularizer.beta"], tuple(row["teachers"]), tuple(others)
