"""Writes docs/results.md and two tables elsewhere from the records of our studies, and no number from anywhere else.

python jobs/recipes/results/page.py            docs/results.md, of all our studies, and tables of README.md and docs/methods.md
python jobs/recipes/results/page.py --quick    work/results/quick.md, of quick
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from aft_ray.report.results import method_title, paired_test
from aft_ray.report.words import CLEAR
from aft_ray.study.config import load_study
from aft_ray.study.found import Found, read_study
from aft_ray.study.splits import over_splits
from jobs.recipes.results.claims import claims_section
from jobs.recipes.results.expect import expect_in_short, expect_section, situations_table
from jobs.recipes.results.methods import earlier_section, methods_in_short, protocol_section, short_table
from jobs.recipes.results.ours import ours_section
from jobs.recipes.results.teachers import (
    better_section,
    controls_missing,
    controls_section,
    several_section,
    teachers_in_short,
)
from jobs.recipes.results.text import Settings, accuracy, chance, compared, table

HERE = Path(__file__).parent
STUDIES = {
    "protocol": ("scratch", "pretrained"),
    "ours": ("ours",),
    "teachers": ("teachers",),
    "ablations": ("ablations",),
    "earlier": ("methods", "new"),
}
"""The studies of each part of the page."""
PAGE, QUICK_PAGE = Path("docs/results.md"), Path("work/results/quick.md")
RECORDS = "[`results/`](results)"
HEAD = """# Results: do the claims hold here?

Written by `{command}`, which runs the studies of `jobs/recipes/results/`; every number is computed from their records in
{records}, one for each setting with a line for each of its trainings. After another run `git diff` shows what changed.
Real data and real pretrained teachers, all from registry packages."""
PROTOCOL = f"""- **Every method has the same budget**: eight settings of its own four strengths, three rates of the student and
  two lengths of training, drawn so that no value comes more often than another, each with one seed; the best two get two seeds
  more. Standard transfer has no strength; all its six settings are tried. The best mean on validation goes on.
- **Test is seen once**: three fresh seeds of that setting, and of each of three splits of the samples, which are tuned apart.
  The column *splits* says how many have been run.
- A seed sets initial weights, the order of samples and which labels are kept, and is the same for all methods, so gains are
  paired by split and seed; p is that of a two-sided paired t-test, ± a standard error over splits and seeds.
- *Relative error* is the test error divided by that of standard transfer, as in the paper's Figure 1b: below 1 is better, and its
  ± is that of the paired gain. Means over data sets count each data set once, with a bootstrap over data sets.
- A difference with p above {CLEAR} is noise until more seeds say otherwise, and among so many comparisons some below it are
  noise as well: Holm's correction says how many gains are left.
- Digits, clothes, reviews and glosses had a part in finding our methods (on validation, with other splits and seeds); the other
  data sets had none."""

VARIANTS = {
    "frozen-gates": "frozen gates",
    "rbf": "RBF kernel",
    "dense": "dense matrix",
    "no-kernel": "no kernel",
    "batch-48": "batches of 48",
    "batch-24": "batches of 24",
    "global-2": "2 workers, the kernels of all",
    "own-2": "2 workers, each its own kernels",
    "global-4": "4 workers, the kernels of all",
    "own-4": "4 workers, each its own kernels",
}
TIMED = ("digits-100", "reviews-100", "reviews-100-pretrained")


def write_page(page: Path, studies: Mapping[str, Settings], command: str, records: str) -> None:
    """Writes the page and the pictures beside it. studies: their settings by part of the page; those without trials count as
    missing. records: where the page says that they lie."""
    page.parent.mkdir(parents=True, exist_ok=True)
    there = {part: {name: one for name, one in found.items() if one.rows} for part, found in studies.items()}
    protocol, teachers = there.get("protocol", {}), there.get("teachers", {})
    short = [*methods_in_short(protocol), *expect_in_short(protocol), *teachers_in_short(teachers)]
    parts = [HEAD.format(command=command, records=records), conditions(there)]
    parts += ["## Protocol", PROTOCOL] if "earlier" in studies else []
    parts += ["## In short", "\n".join(f"- {sentence}" for sentence in short)] if short else []
    claims = claims_section(there) if "teachers" in studies else []
    parts += ["## The paper's claims", *claims] if claims else []
    for part, title, section in SECTIONS:
        if part in studies:
            missing = _missing(studies[part]) if section in (protocol_section, earlier_section, _ablations) else []
            missing += controls_missing(studies[part]) if section is controls_section else []
            told = section(there[part], page.parent)
            told += [f"Not run yet: {', '.join(missing)}."] if missing else []
            parts += [f"## {title}", *told] if told else []
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def conditions(studies: Mapping[str, Settings]) -> str:
    """When, on what, and how much of it. A training whose line is in two records counts once."""
    found = [one for settings in studies.values() for one in settings.values()]
    if not found:
        return "Nothing has been run yet."
    runs = [run for one in found for run in one.record.runs if run["method"] in one.chosen]
    took = {(row["trial"], row["wall_time_s"]) for one in found for row in one.rows}
    days = sorted(run["date"] for run in runs)
    machines = "; ".join(sorted({one.record.machine for one in found}))
    hours = sum(seconds for _, seconds in took) / 3600
    again = sum("repeats" in run for run in runs)
    code = ", ".join(sorted({run["code"] for run in runs if run["code"]}))
    told = f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {machines}. {len(took):,} trainings, {hours:.1f} core-hours."
    if code:
        told += f" The latest runs are of commit {code}; the records name the date and the code of each method."
    if again:
        of = "1 method of an earlier run was" if again == 1 else f"{again} methods of earlier runs were"
        told += f" {of} run again and gave the same accuracies."
    return told


def _missing(found: Settings) -> list[str]:
    """Settings without final runs, and methods that others lack."""
    names = [f"`{name}`" for name, one in found.items() if not one.rows]
    there = [one for one in found.values() if one.rows]
    return names + [
        f"{method_title(method)} on `{one.name}`"
        for one in there
        for method in one.recipe.search.methods(one.recipe.regularizer.name)
        if method not in one.chosen
    ]


def _ablations(found: Settings, folder: Path) -> list[str]:
    if (base := found.get("digits-5")) is None:
        return []
    rows = [_variant(method_title(method), base, method, base) for method in ("none", "aft")]
    known = {title: found[name] for name, title in VARIANTS.items() if name in found}
    rows += [_variant(title, one, next(m for m in one.chosen if m != "none"), base) for title, one in known.items()]
    return [
        "On `digits-5`, each with strengths of its own chosen on validation.",
        table(["variant", "beta", "test, %", "over standard transfer, points", "over AFT, points"], rows),
    ]


def _variant(title: str, found: Found, method: str, base: Found) -> list[str]:
    entry, cells = found.chosen[method], []
    for reference in ("none", "aft"):
        gain, _, p_value = paired_test(entry.finals, base.chosen[reference].finals)
        is_itself = found is base and method == reference
        cells.append("" if is_itself else f"{100 * gain:+.2f}, p {chance(p_value)}")
    return [title, f"{entry.beta:g}" if entry.teachers else "", accuracy(entry), *cells]


def _overhead(found: Settings, folder: Path) -> list[str]:
    times = {name: found[name].record.step_ms or {} for name in TIMED if name in found}
    if not times:
        return []
    names = [method for method in compared(found.values()) if any(method in known for known in times.values())]
    rows = [[f"`{n}`", *(f"{known[m]:.1f}" if m in known else "" for m in names)] for n, known in times.items()]
    return [
        "Milliseconds per training step, one core, median over the final runs; two trials ran side by side. The students are"
        " tiny, which makes the share of any regularizer look large.",
        table(["setting", *map(method_title, names)], rows),
    ]


SECTIONS: tuple[tuple[str, str, Callable[[Settings, Path], list[str]]], ...] = (
    ("protocol", "What to expect", expect_section),
    ("protocol", "Every method in every setting", protocol_section),
    ("ours", "What of our methods matters", ours_section),
    ("teachers", "Controls: transfer or pseudo-labelling?", controls_section),
    ("teachers", "Do better teachers make better students?", better_section),
    ("teachers", "Several teachers, and a harmful one", several_section),
    ("ablations", "What of AFT is needed", _ablations),
    ("earlier", "What a step costs", _overhead),
    ("earlier", "Earlier runs", earlier_section),
)


def put(file: Path, name: str, content: str) -> None:
    """Writes the content between the two comments of that name in a page that is otherwise written by hand."""
    before, start, rest = file.read_text(encoding="utf-8").partition(f"<!-- {name}, written by make results -->\n")
    _, end, after = rest.partition(f"\n<!-- end of {name} -->")
    if not start or not end:
        raise ValueError(f"{file} has no place for {name}.")
    file.write_text(f"{before}{start}{content}{end}{after}", encoding="utf-8")


def read(*studies: str) -> Settings:
    """The settings of some of our studies, each over its splits, as their records have them."""
    loaded = [load_study(HERE / f"{study}.yaml") for study in studies]
    found = [one for study in loaded for one in over_splits(read_study(study, of_records=True))]
    return {one.name: one for one in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the page of the quick study")
    if parser.parse_args().quick:
        write_page(QUICK_PAGE, {"protocol": read("quick")}, "make results-quick", "`work/results/studies/quick/`")
        print(f"page: {QUICK_PAGE}")
    else:
        studies = {part: read(*names) for part, names in STUDIES.items()}
        write_page(PAGE, studies, "make results", RECORDS)
        put(Path("README.md"), "results", short_table(studies["protocol"]))
        put(Path("docs/methods.md"), "situations", situations_table(studies["protocol"]))
        print(f"page: {PAGE}, and a table each in README.md and docs/methods.md")


if __name__ == "__main__":
    main()
