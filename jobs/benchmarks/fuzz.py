"""A drill: mutations of a workspace's files, of recipes and of raw data, and how the verbs that read them end.

    python jobs/benchmarks/fuzz.py --mutations 500 --seed 0
    python jobs/benchmarks/fuzz.py --only 17             one mutation, with all that its verbs said

Every verb must end with status 0 and the results of the undamaged run, or with status 2 and lines that name the key or file;
never with a traceback, after more than 20 s, with other numbers, or with a change outside the workspace. The verbs are the
product's own, each in a forked child, with Ray replaced by that child.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import math
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from aft_ray.commands.environment import set_environment
from aft_ray.recipe.config import load
from jobs.benchmarks import fuzz_recipes, fuzz_sources, fuzz_verbs
from jobs.benchmarks.fuzz_files import UNKNOWABLE, mutate_file, unreadable
from jobs.benchmarks.fuzz_subject import make_subject
from jobs.benchmarks.fuzz_verbs import READERS, VERBS, Ended, collector, outside, told_numbers


@dataclass
class Case:
    """A mutation and how its verbs ended: exit statuses, and a line for each violation."""

    seed: int
    kind: str
    what: str
    statuses: list[int | None] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def add(self, verb: str, ended: Ended, faults: Sequence[str]) -> None:
        self.statuses.append(ended.status)
        self.violations += [f"{verb}: {fault}" for fault in faults]
        self.said.append(f"--- {verb}: exit {ended.status}, {ended.seconds:.1f} s\n{ended.out}{ended.err}")


@dataclass(frozen=True)
class Bench:
    """The subject, and each verb's end on it. scratch: where copies of it are changed. num_verbs: for one mutation, at most."""

    subject: Path
    scratch: Path
    num_verbs: int
    undamaged: dict[str, Ended]

    def case(self, seed: int) -> Case:
        """Makes the mutation of this seed and runs its verbs."""
        random = Random(seed)
        return random.choice((self._of_file, self._of_file, self._of_recipe, self._of_source))(random, seed)

    def _of_file(self, random: Random, seed: int) -> Case:
        state = random.getstate()
        with self._copy(seed) as place:
            mutator, path, what = mutate_file(random, place / "work")
        name = path.relative_to(place)
        case = Case(seed, f"workspace: {mutator.__name__}", f"{name} {what}")
        part = name.parts[2] if name.parts[1] == "runs" else name.parts[1]
        verbs = READERS.get(part.replace("rank.parquet", "rank.json"), ("report", "verify"))
        for verb in random.sample(verbs, min(self.num_verbs, len(verbs))):
            again = Random()
            again.setstate(state)
            with self._copy(seed) as place:
                mutate_file(again, place / "work")
                ended = self._run(case, verb, place, VERBS[verb], collector(verb), as_nobody=mutator is unreadable)
            is_missed = verb == "verify" and ended.status == 0 and part in ("samples", "features")
            may_differ = mutator in UNKNOWABLE or path.name == "best.yaml"  # a recipe, that its user may change
            names = {*name.parts[-2:], *what.split("/")[-1:], name.parts[1]}
            ended = replace(ended, results=_without(ended.results, what, path))
            faults = fuzz_verbs.faults(
                ended,
                sorted(names),
                _without(self.undamaged[verb].results, what, path),
                may_differ=may_differ,
                may_fail=verb == "verify" or mutator is unreadable,
            )
            if is_missed and not may_differ and "as it was" not in what:
                faults.append("verify misses it")
            if not faults and ended.status == 0 and not may_differ:
                told, wanted = (told_numbers(verb, e.out) for e in (ended, self.undamaged[verb]))
                faults += [f"says {told[:200]!r} for {wanted[:200]!r}"] if told != wanted else []
            case.add(verb, ended, faults)
        return case

    def _of_recipe(self, random: Random, seed: int) -> Case:
        mutator = random.choice(fuzz_recipes.MUTATORS)
        verbs = random.sample(
            ("prepare", "rank", "dry run", "continue", "evaluate", "report", "extract", "fresh"), self.num_verbs
        )
        state = random.getstate()
        case = Case(seed, f"recipe: {mutator.__name__}", "")
        for verb in verbs:
            random.setstate(state)
            with self._copy(seed) as place:
                path = place / "recipe.yaml"
                before = load(path).model_dump(mode="json")
                changed = mutator(random, path)
                case.what = changed.what
                name, *rest = VERBS["prepare" if verb == "fresh" else verb]
                if verb == "fresh":
                    shutil.rmtree(place / "work")
                arguments = [name, *rest, *changed.overrides]
                recipe = partial(_recipe, changed.overrides)
                ended = self._run(case, verb, place, arguments, recipe)
            found = ended.results or {}
            names = [
                *re.split(r"[.: ']+", f"{changed.key or ''} {changed.what}"),
                "recipe.yaml",
                "key=value",
                "Unknown key",
            ]
            if mutator is fuzz_recipes.text:
                names += ["train.", "search.", "dataset", "student", "teacher", "key"]
            faults = fuzz_verbs.faults(ended, [n for n in names if n], None, may_differ=True)
            if ended.status == 0 and changed.key and not is_meant(found, changed.key, changed.text or ""):
                faults.append(f"{changed.key} becomes {_at(found, changed.key)!r}")
            if ended.status == 0 and found == before and verb != "fresh":
                told, wanted = (told_numbers(verb, e.out) for e in (ended, self.undamaged[verb]))
                faults += [f"says {told[:200]!r} for {wanted[:200]!r}"] if told != wanted else []
            case.add(verb, ended, faults)
        return case

    def _of_source(self, random: Random, seed: int) -> Case:
        with self._copy(seed) as place:
            name, mutator, what = fuzz_sources.mutate_source(random, place / "data")
            case = Case(seed, f"source: {mutator.__name__}", f"{name} {what}")
            try:
                wanted = fuzz_sources.reference(place / "data" / name)
            except Exception:
                wanted = None
            arguments = ["prepare", "recipe.yaml", "workspace=fresh", fuzz_sources.dataset(name)]
            is_hidden = mutator is unreadable or "unreadable" in what
            ended = self._run(case, "prepare", place, arguments, lambda place: None, as_nobody=is_hidden)
            names = [name, *what.split(":")[0].split("/"), "dataset.", "class", "fraction"]
            faults = fuzz_verbs.faults(ended, names, None, may_differ=True, may_fail=is_hidden)
            if ended.status == 0 and wanted is not None and not is_hidden:
                lost = wanted - (found := fuzz_sources.prepared(place / "fresh"))
                more = found - wanted
                is_told = "left out" in ended.err
                if (lost and not is_told) or more:
                    faults.append(f"lost without a word: {[*lost][:3]}, not there: {[*more][:3]}")
            case.add("prepare", ended, faults)
            if self.num_verbs > 1:
                ended = self._run(
                    case, "init", place, ["init", f"data/{name}"], lambda place: None, as_nobody=is_hidden
                )
                faults = fuzz_verbs.faults(ended, names, None, may_differ=True, may_fail=is_hidden)
                case.add("init", ended, faults)
        return case

    def _run(
        self,
        case: Case,
        verb: str,
        place: Path,
        arguments: Sequence[str],
        collect: Callable[[Path], Any],
        **options: Any,
    ) -> Ended:
        before = outside(place)
        ended = fuzz_verbs.run(place, arguments, collect, **options)
        after = outside(place)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        if changed:
            case.violations.append(f"{verb}: changed outside the workspace: {', '.join(changed[:5])}")
        return ended

    @contextmanager
    def _copy(self, seed: int) -> Iterator[Path]:
        place = self.scratch / f"{os.getpid()}" / "subject"
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(self.subject, place, symlinks=True)
        yield place
        shutil.rmtree(place.parent, ignore_errors=True)


def _without(results: Any, what: str, path: Path) -> Any:
    """Results without the changed files themselves: `prepare` and `extract` leave whole files alone, by their size."""
    if not isinstance(results, dict):
        return results
    return {name: value for name, value in results.items() if not f"/{path} {what} ".count(f"/{name} ")}


def _recipe(overrides: Sequence[str], place: Path) -> Any:
    return load(place / "recipe.yaml", overrides).model_dump(mode="json")


def _at(recipe: Any, key: str) -> Any:
    for part in key.split("."):
        recipe = recipe.get(part) if isinstance(recipe, dict) else None
    return recipe


def is_meant(recipe: Any, key: str, text: str) -> bool:
    """Whether a recipe has exactly the value that was typed."""
    found = _at(recipe, key)
    try:
        typed = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        typed = text
    if isinstance(typed, (dict, list)) or isinstance(found, (dict, list)):
        return True  # sections are filled with defaults
    if text in (found, f"'{found}'") or typed is None:
        return True
    if isinstance(found, bool) and isinstance(typed, (int, float)):
        return typed == found  # 0 and 1 are false and true; 2 is neither
    if isinstance(typed, bool) or isinstance(found, bool) or not isinstance(typed, (int, float)):
        return typed is found or (typed == found and not isinstance(found, bool))
    return isinstance(found, (int, float)) and math.isclose(typed, found)


def open_bench(folder: Path, num_verbs: int) -> Bench:
    """Makes the subject below `folder`, in a child, and runs every verb on it."""
    subject, scratch = folder / "subject", folder / "scratch"
    subject.mkdir(parents=True)
    maker = multiprocessing.get_context("fork").Process(target=make_subject, args=(subject,))
    maker.start()
    maker.join()
    assert not maker.exitcode, "the subject cannot be made"
    for name in fuzz_verbs.NOTES:
        (subject / name).write_text("Mine.\n")
    bench = Bench(subject, scratch, num_verbs, {})
    for verb, arguments in VERBS.items():
        with bench._copy(0) as place:
            bench.undamaged[verb] = ended = fuzz_verbs.run(place, arguments, collector(verb))
        assert ended.status == 0, f"{verb} of the undamaged subject: {ended.status} {ended.err}"
        _import(ended.modules)
    gc.freeze()
    return bench


def _import(modules: Sequence[str]) -> None:
    """Imports one child's modules here, for all later children."""
    for name in (name for name in modules if not name.startswith("triton")):
        with suppress(Exception):
            importlib.import_module(name)


def drill(bench: Bench, seeds: Sequence[int], workers: int) -> Iterator[Case]:
    """The cases of these seeds, as they end."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(bench.case, seeds)


def table(cases: Sequence[Case]) -> str:
    """Mutations by kind, and how their verbs ended."""
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        kinds[case.kind].append(case)
    lines = [
        "| kind | mutations | verbs | exit 0, right | exit 2 | damage found by verify | violations |",
        "|---|" + "---|" * 6,
    ]
    for name, found in [*sorted(kinds.items()), ("**all**", list(cases))]:
        statuses = [status for case in found for status in case.statuses]
        wrong = sum(len(case.violations) for case in found)
        counts = [len(found), len(statuses), *(statuses.count(status) for status in (0, 2, 1)), wrong]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="mutation k has the seed 1000 * SEED + k")
    parser.add_argument("--only", type=int, help="the seed of one mutation, whose verbs' output is shown")
    parser.add_argument("--verbs", type=int, default=3, help="verbs for one mutation, at most")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    options = parser.parse_args()
    set_environment()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds = [options.only] if options.only is not None else [1000 * options.seed + k for k in range(options.mutations)]
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for case in drill(open_bench(Path(folder), options.verbs), seeds, options.workers):
            cases.append(case)
            if options.only is not None:
                print(case.kind, case.what, *case.said, sep="\n")
            for violation in case.violations:
                print(f"--only {case.seed}: {case.kind}: {case.what}: {violation}", flush=True)
            if len(cases) % 25 == 0:
                print(f"{len(cases)} of {len(seeds)}", file=sys.stderr, flush=True)
    print(table(cases))
    return 1 if any(case.violations for case in cases) else 0


if __name__ == "__main__":
    STATUS = main()
    sys.stdout.flush()
    os._exit(STATUS)  # compilers that torch has imported for the children would complain at the end
