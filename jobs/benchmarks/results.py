"""Do the claims hold? Recipes through the product's own stages, and docs/results.md from what these left behind.

    python jobs/benchmarks/results.py                     everything, some hours on two cores; again to go on
    python jobs/benchmarks/results.py --quick             two settings, three methods, fewer seeds: under ten minutes
    python jobs/benchmarks/results.py --only digits-5     one search, or all of a claim: --only ablations
    python jobs/benchmarks/results.py --page              write the page from what there is

A claim is a list of searches, a search a recipe of `jobs/benchmarks/recipes/` with some keys changed. Trials that are over
stay over. Data that is missing is named, and the searches that need it are left out. What a finished search found is kept
in a record beside the page, which is written from records alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aft_ray.commands.environment import set_environment
from aft_ray.recipe.config import Recipe, load, override

RECIPES = Path(__file__).parent / "recipes"
PAGE, QUICK_PAGE = Path("docs/results.md"), Path("work/results/quick.md")


@dataclass(frozen=True)
class Search:
    """A search of the product: a recipe, and dotted keys of it that are changed."""

    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def load(self, *, quick: bool) -> Recipe:
        recipe = _with_used_teachers(override(load(RECIPES / f"{self.recipe}.yaml", []), self.changes))
        if not quick:
            return recipe
        final = {"seeds": 3, "train_on": recipe.search.final.train_on}
        few = {"search.compare": ["none", "kd", "aft"], "search.seeds": 1, "search.final": final}
        return override(recipe, {"run": f"quick-{recipe.run}", **few})


def _with_used_teachers(recipe: Recipe) -> Recipe:
    """The recipe without teachers that its search does not try, so that nobody waits for their features."""
    if isinstance(recipe.search.teachers, str):
        return recipe
    used = {name for names in recipe.search.teachers for name in names}
    kept = [teacher.model_dump(mode="json") for teacher in recipe.teachers if teacher.name in used]
    return override(recipe, {"teachers": kept})


def of_teachers(*names: str) -> Search:
    """Teachers' comparison with these alone."""
    return Search("teachers", {"run": "_".join(names), "search.teachers": [names]})


def variant(name: str, method: str = "aft", changes: Mapping[str, Any] | None = None) -> Search:
    """The ablation `name`: one method on the digits of the first claim."""
    own = {"run": name, "search.compare": [method], "regularizer.name": method}
    return Search("ablations", {**own, **(changes or {})})


METHODS = (
    "digits-5",
    "digits-5-alone",
    "digits-20",
    "digits-20-alone",
    "digits-100",
    "digits-5-pretrained",
    "reviews-5",
    "reviews-20",
    "reviews-100",
    "reviews-5-pretrained",
    "reviews-20-pretrained",
    "reviews-100-pretrained",
    "clothes",
    "glosses",
    "spam",
)
NEW = ("emoji-names", "tweets", "editorials", "emoji-pictures")
"""Pretrained students of data that took no part in finding aft_probe and probe_kd."""
TEACHERS = ("noise", "pixels", "lite0-24", "lite0-40", "mobilenet", "lite0", "lite2")
COMBINATIONS = (
    ("lite0", "mobilenet"),
    ("lite0", "lite2"),
    ("mobilenet", "lite2"),
    ("lite0", "mobilenet", "lite2"),
    ("noise", "lite0"),
    ("noise", "lite0", "mobilenet", "lite2"),
)
TWO = {"search.workers_per_trial": 2, "search.beta": [5, 20], "search.seeds": 1}  # slow on two cores
FOUR = {**TWO, "search.workers_per_trial": 4, "search.cpus_per_trial": 0.5}
OWN = {"regularizer.scope": "worker"}
ALONE = Search("teachers", {"run": "none", "search.compare": ["none"]})
SINGLES = {"none": ALONE, **{name: of_teachers(name) for name in TEACHERS}}
PER_TEACHER = {"run": "noise_lite0-per-teacher", "search.compare": ["aft"], "regularizer.normalize": "per_teacher"}
"""The product's default for several teachers; the combinations have the paper's AFT, which takes their norms as they are."""
CONTROLS = {
    "digits: none": ALONE,
    **{f"digits: {name}": SINGLES[name] for name in ("lite0", "pixels", "noise")},
    "digits: shuffled": of_teachers("shuffled"),
    "digits: noise + lite0": of_teachers("noise", "lite0"),
    "digits: noise + lite0, normalized": Search("teachers", {"search.teachers": [["noise", "lite0"]], **PER_TEACHER}),
    "glosses: none": Search("glosses"),
    "glosses: minilm": Search("glosses"),
    "glosses: words": Search("glosses-words"),
    "glosses: shuffled": Search("glosses-shuffled"),
}
CLAIMS: dict[str, dict[str, Search]] = {
    "methods": {name: Search(name) for name in METHODS},
    "new": {name: Search(name) for name in NEW},
    "controls": CONTROLS,
    "teachers": SINGLES,
    "combinations": {**SINGLES, **{" + ".join(names): of_teachers(*names) for names in COMBINATIONS}},
    "ablations": {
        "digits-5": Search("digits-5"),
        "frozen gates": variant("frozen-gates", changes={"regularizer.learn_gates": False}),
        "RBF kernel": variant("rbf", "aft_rbf"),
        "dense matrix": variant("dense", "aft_dense"),
        "no kernel": variant("no-kernel", "aft_no_kernel"),
        "batches of 48": variant("batch-48", changes={"train.global_batch_size": 48}),
        "batches of 24": variant("batch-24", changes={"train.global_batch_size": 24}),
        "2 workers, the kernels of all": variant("global-2", changes=TWO),
        "2 workers, each its own kernels": variant("own-2", changes={**TWO, **OWN}),
        "4 workers, the kernels of all": variant("global-4", changes=FOUR),
        "4 workers, each its own kernels": variant("own-4", changes={**FOUR, **OWN}),
    },
    "overhead": {name: Search(name) for name in ("digits-100", "reviews-100", "reviews-100-pretrained")},
}
QUICK = {"methods": {name: Search(name) for name in ("digits-5", "reviews-5")}}


def only(recipe: Recipe, methods: Sequence[str] | None) -> Recipe:
    """The recipe with those of its methods that are in `methods`."""
    compared = recipe.search.methods(recipe.regularizer.name)
    return override(recipe, {"search.compare": [name for name in compared if not methods or name in methods]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="claims, or searches by name")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="of those that the recipes compare, these only")
    parser.add_argument(
        "--quick", action="store_true", help="two settings, three methods, few seeds; a page of their own"
    )
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    arguments = parser.parse_args()
    claims = QUICK if arguments.quick else CLAIMS
    recipes = {
        claim: {name: search.load(quick=arguments.quick) for name, search in searches.items()}
        for claim, searches in claims.items()
    }
    set_environment()  # before anything imports ray
    from jobs.benchmarks.results_found import collect, is_finished, place_of
    from jobs.benchmarks.results_page import write_page
    from jobs.benchmarks.results_run import run

    wanted = {
        str(place_of(recipe)): recipe
        for claim, searches in recipes.items()
        for name, recipe in searches.items()
        if not arguments.only or {claim, name} & set(arguments.only)
    }
    stopped = False
    try:
        if not arguments.page:
            limited = [only(recipe, arguments.methods) for recipe in wanted.values()]
            run([recipe for recipe in limited if recipe.search.compare and not is_finished(recipe)])
    except KeyboardInterrupt:
        stopped = True
    page = QUICK_PAGE if arguments.quick else PAGE
    write_page(page, collect(recipes, page), "make results-quick" if arguments.quick else "make results")
    print(f"page: {page}{'; stopped, run the same command again to continue' * stopped}")
    return int(stopped)


if __name__ == "__main__":
    sys.exit(main())
