"""The search space: settings and trials, made from the recipe's `search` section.

A trial is a training with some keys of the recipe replaced. A grid lists its settings; ranges are drawn by a
seed; `proposals` also has Optuna, which learns from the trials before.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aft_ray.recipe.config import Recipe, fingerprint, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.search_section import TOP_BY_RANK, Betas, Range, Values
from aft_ray.recipe.sections import RegularizerConfig
from aft_ray.regularizers import regularizer_class
from aft_ray.search.balanced import balanced_columns

LONGEST_NAME = 120
TRIES = 10_000
"""Random draws beyond the number asked for, until a narrow range counts as tried out."""
MOST_SUBSETS = 2_000_000
"""Combinations of teachers: all of 20 teachers, from which a search may draw."""
BETA, TEACHERS = "regularizer.beta", "teachers"
ELSEWHERE = {
    "regularizer.name": "search.compare",
    "regularizer.beta": "search.beta",
    "teachers": "search.teachers",
    "train.seed": "search.seeds",
    "train.num_workers": "search.workers_per_trial",
    "train.use_gpu": "search.gpus_per_trial",
}
"""Keys that have a way of their own to be searched."""
SEARCHED_SECTIONS = ("student", "regularizer", "train")
METHODS_SECTIONS = ("regularizer", "train")
"""Sections whose keys may differ between methods: a comparison of methods has one student."""


@dataclass(frozen=True)
class Setting:
    """The values that a search chooses. others: other dotted keys that are searched, with their values, sorted."""

    method: str
    beta: float
    teachers: tuple[str, ...]
    others: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """A part of a directory's name: readable, and unique to the setting."""
        values = [f"{key}_{value}" for key, value in self.others]
        full = "-".join([self.method, f"beta{self.beta:g}", "_".join(self.teachers) or "no-teacher", *values])
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", full)
        if safe == full and len(safe) <= LONGEST_NAME:
            return safe
        return f"{safe[:LONGEST_NAME]}-{fingerprint(full)[:8]}"

    def in_words(self) -> str:
        """For a line on the terminal."""
        with_teachers = [f"beta {self.beta:g}", " + ".join(self.teachers)] if self.teachers else []
        return ", ".join([self.method, *with_teachers, *(f"{key} {value}" for key, value in self.others)])


@dataclass(frozen=True)
class Trial:
    """One training of a search. stage: `search`, compared on validation, or `final`, which also sees the test split."""

    stage: str
    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """The directory under `trials/`; the same trial has the same name in every run of the search."""
        return f"{self.stage}-{self.setting.name}-seed{self.seed}"

    def recipe(self, base: Recipe) -> Recipe:
        """`base` with this trial's values in place."""
        setting = self.setting
        options = base.regularizer.options if setting.method == base.regularizer.name else {}
        regularizer = base.regularizer.model_dump(include={"learning_rate", "steps_per_student_step"})
        teachers = [teacher.model_dump(mode="json") for teacher in base.teachers if teacher.name in setting.teachers]
        changes = {
            "regularizer": {"name": setting.method, "beta": setting.beta, **regularizer, **options},
            "teachers": teachers,
            "train.seed": self.seed,
            "train.num_workers": base.search.workers_per_trial,
            "search": {},
        }
        return override(base, changes | dict(setting.others))

    def to_json(self) -> dict[str, Any]:
        """Plain types, for Tune and for files."""
        setting = self.setting
        return {
            "stage": self.stage,
            "method": setting.method,
            "beta": setting.beta,
            "teachers": list(setting.teachers),
            "others": dict(setting.others),
            "seed": self.seed,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Trial:
        """The trial of the values that `to_json` gave."""
        others = tuple(sorted((key, _frozen(value)) for key, value in values["others"].items()))
        setting = Setting(values["method"], values["beta"], tuple(values["teachers"]), others)
        return cls(values["stage"], setting, values["seed"])


@dataclass(frozen=True)
class Space:
    """The settings of one method. values: `regularizer.beta`, `teachers` (combinations) and the other keys."""

    method: str
    values: Mapping[str, Values]

    def setting(self, chosen: Mapping[str, Any]) -> Setting:
        """The setting that has these values, in the types that a recipe keeps."""
        others = tuple(sorted((key, _frozen(value)) for key, value in chosen.items() if key not in (BETA, TEACHERS)))
        return Setting(self.method, float(chosen[BETA]), tuple(chosen[TEACHERS]), others)

    def grid(self) -> Iterator[Setting]:
        """Every setting, where no key has a range."""
        lists = [values for values in self.values.values() if not isinstance(values, Range)]
        assert len(lists) == len(self.values), "the recipe refuses a grid of ranges"
        for chosen in itertools.product(*lists):
            yield self.setting(dict(zip(self.values, chosen, strict=True)))

    def size(self) -> float:
        """How many settings there are; infinitely many where a key has a range."""
        return math.prod(math.inf if isinstance(values, Range) else len(values) for values in self.values.values())

    def draws(self, count: int, seed: int | str, *, balanced: bool = False) -> list[Setting]:
        """`count` different settings drawn at random, all if there are not more; fewer where a narrow range has not so many.
        balanced: no value is drawn more often than another (`balanced`)."""
        if self.size() <= count:
            return list(self.grid())
        source = random.Random(f"{seed} {self.method}")
        drawn: dict[Setting, None] = dict.fromkeys(self._balanced(count, source) if balanced else ())
        if len(drawn) == count:
            return list(drawn)
        for _ in range(count + TRIES):
            setting = self.setting({key: _draw(values, source) for key, values in self.values.items()})
            drawn[setting] = None
            if len(drawn) == count:
                break
        return list(drawn)

    def _balanced(self, count: int, source: random.Random) -> list[Setting]:
        sizes = {key: None if isinstance(values, Range) else len(values) for key, values in self.values.items()}
        columns = balanced_columns(sizes, count, source)
        return [
            self.setting({key: _at(values, *columns[key][row]) for key, values in self.values.items()})
            for row in range(count)
        ]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _draw(values: Values, source: random.Random) -> Any:
    return _at(values, 0, source.random()) if isinstance(values, Range) else source.choice(values)


def _at(values: Values, place: int, part: float) -> Any:
    """The value at a place of a list, or at a part of a range, 0 to 1."""
    if not isinstance(values, Range):
        return values[place]
    if values.log:
        low, high = math.log(values.min), math.log(values.max)
        return rounded(math.exp(low + (high - low) * part))
    return rounded(values.min + (values.max - values.min) * part)


def rounded(number: float) -> float:
    """Four digits: a name then says the whole number."""
    return float(f"{number:.4g}")


def teacher_subsets(recipe: Recipe) -> list[tuple[str, ...]]:
    """The combinations that `search.teachers` asks for, each in the recipe's order; for top_K_by_rank, all that are ranked.

    Raises InputError if they are more than MOST_SUBSETS.
    """
    if (count := num_subsets(recipe)) > MOST_SUBSETS:
        raise InputError(
            f"search.teachers={recipe.search.teachers} makes {count:,} combinations of {len(recipe.teachers)} teachers, the"
            f" most is {MOST_SUBSETS:,}. Take singles, singles_and_pairs or a list of combinations."
        )
    return [*_subsets(recipe)]


def _subsets(recipe: Recipe) -> Iterator[tuple[str, ...]]:
    names, asked = recipe.teacher_names(), recipe.search.teachers
    if isinstance(asked, str):
        return (subset for size in _subset_sizes(recipe) for subset in itertools.combinations(names, size))
    return iter(dict.fromkeys(tuple(name for name in names if name in subset) for subset in asked))


def _subset_sizes(recipe: Recipe) -> range:
    """How many teachers a combination has, where `search.teachers` is a word."""
    num_teachers = len(recipe.teachers)
    most = {"singles": 1, "singles_and_pairs": 2}.get(str(recipe.search.teachers), num_teachers)
    return range(1, min(most, num_teachers) + 1)


def num_subsets(recipe: Recipe) -> int:
    """How many combinations `search.teachers` asks for, without listing them."""
    if isinstance(recipe.search.teachers, str):
        return sum(math.comb(len(recipe.teachers), size) for size in _subset_sizes(recipe))
    return sum(1 for _ in _subsets(recipe))


def first_subset(recipe: Recipe) -> tuple[str, ...]:
    """The first combination, to check a recipe with; empty without teachers."""
    return next(_subsets(recipe), ())


def top_by_rank(recipe: Recipe) -> int | None:
    """K of `search.teachers: top_K_by_rank`, None for anything else."""
    match = TOP_BY_RANK.fullmatch(recipe.search.teachers) if isinstance(recipe.search.teachers, str) else None
    return int(match[1]) if match else None


def strengths(recipe: Recipe, method: str) -> Betas:
    """The values of beta to try: the recipe's, or if it names none at all, the method's own."""
    return recipe.search.betas(method) if recipe.search.beta else regularizer_class(method).betas


def spaces(recipe: Recipe, subsets: Sequence[tuple[str, ...]]) -> list[Space]:
    """One of each method that is searched."""
    found = []
    for method in recipe.search.methods(recipe.regularizer.name):
        values = {
            BETA: strengths(recipe, method),
            TEACHERS: tuple(subsets) if regularizer_class(method).needs_teachers else ((),),
            **{key: values for key, values in recipe.search.space_of(method).items() if applies(key, method)},
        }
        found.append(Space(method, values))
    return found


def applies(key: str, method: str) -> bool:
    """Whether a searched key says anything to `method`."""
    section, _, name = key.partition(".")
    if section != "regularizer":
        return True
    kind = regularizer_class(method)
    return kind.needs_teachers and (name in RegularizerConfig.model_fields or name in kind.options())


def plan_trials(recipe: Recipe, subsets: Sequence[tuple[str, ...]]) -> list[Trial]:
    """The trials of a grid, or of random draws: the same number of settings for each method that has so many."""
    settings: list[Setting] = []
    for space in spaces(recipe, subsets):
        count, seed = recipe.search.num_samples, recipe.train.seed
        if count is None:
            settings += space.grid()
        elif recipe.search.searcher == "balanced":  # each split of a study's data has draws of its own
            settings += space.draws(count, f"{seed} {recipe.dataset.split_seed}", balanced=True)
        else:
            settings += space.draws(count, seed)
    return [trial for setting in settings for trial in seeded(recipe, setting)]


def seeded(recipe: Recipe, setting: Setting) -> list[Trial]:
    """The trials that every setting has, one per seed."""
    return [Trial("search", setting, recipe.train.seed + number) for number in range(recipe.search.first_seeds)]


def finalist_trials(recipe: Recipe, setting: Setting) -> list[Trial]:
    """The further trials of a finalist, one per seed."""
    numbers = range(recipe.search.first_seeds, recipe.search.seeds)
    return [Trial("search", setting, recipe.train.seed + number) for number in numbers]


def final_trials(recipe: Recipe, setting: Setting) -> list[Trial]:
    """Its final runs, with seeds that no trial of the search had."""
    first = recipe.train.seed + recipe.search.seeds
    return [Trial("final", setting, first + number) for number in range(recipe.search.final.seeds)]


def space_faults(recipe: Recipe, check: Callable[[Recipe], list[str]]) -> list[str]:
    """Faults of `search.space` and `search.per_method`: unknown keys and methods, keys that are searched elsewhere, values
    that a recipe refuses.

    check: finds the faults of a recipe that has a value in place.
    """
    methods = recipe.search.methods(recipe.regularizer.name)
    faults = _key_faults(recipe, "search.space", recipe.search.space, methods, SEARCHED_SECTIONS, check)
    for method, keys in recipe.search.per_method.items():
        place = f"search.per_method.{method}"
        try:
            regularizer_class(method)
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        if method in methods:  # a base may have values for methods that this search does not compare
            faults += _key_faults(recipe, place, keys, (method,), METHODS_SECTIONS, check)
    return list(dict.fromkeys(faults))


def _key_faults(
    recipe: Recipe,
    place: str,
    keys: Mapping[str, Values],
    methods: Sequence[str],
    sections: Sequence[str],
    check: Callable[[Recipe], list[str]],
) -> list[str]:
    """Faults of the searched keys at `place` of the recipe. A key is tried with the methods of `methods` that have it."""
    faults: list[str] = []
    first = first_subset(recipe)  # a method may take no more of them at once
    for key, values in keys.items():
        fitting = [method for method in methods if applies(key, method)]
        if key in ELSEWHERE:
            faults.append(f"{place} cannot have {key}. Use {ELSEWHERE[key]}.")
        elif key.partition(".")[0] not in sections or "." not in key:
            faults.append(f"{place} cannot have {key}: keys of {', '.join(sections)} can be searched.")
        elif not fitting:
            faults.append(f"{place} has {key}, which is no key of {', '.join(methods)}.")
        else:
            for value in (values.min, values.max) if isinstance(values, Range) else values:
                trial = Trial("search", Setting(fitting[0], 1.0, first, ((key, value),)), 0)
                try:
                    found = check(trial.recipe(recipe))
                except InputError as error:
                    found = error.faults
                faults += [f"{place}, {key}={value}: {fault}" for fault in found]
    return faults
