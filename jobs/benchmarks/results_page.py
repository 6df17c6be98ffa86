"""docs/results.md: tables of what searches have left behind, and no number from anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from scipy.stats import pearsonr

from aft_ray.report.results import METHODS, method_title, paired_test
from jobs.benchmarks.results_controls import controls_section, shares_in_short
from jobs.benchmarks.results_found import Found
from jobs.benchmarks.results_methods import OURS, methods_in_short, methods_section, new_section, verdicts
from jobs.benchmarks.results_pictures import draw_teachers
from jobs.benchmarks.results_text import CLEAR, accuracy, chance, table

HEAD = """# Results: do the claims hold here?

Written by `{command}`; every number is computed from the records in [`{records}/`]({records}), one for each search with a line
for each of its trainings. After another run `git diff` shows what changed. Real data and real pretrained teachers, all from
registry packages.

In each setting every method has the same number of strengths (beta) to choose from by its mean validation accuracy; then come
fresh seeds, five in `make results`, which alone see the test split. A seed sets initial weights, the order of samples and which
labels are kept, and is the same for all methods, so gains are paired by seed; p is that of a two-sided paired t-test. ± is a
standard error over seeds and does not include the choice of the split. *Relative error* is the test error divided by that of
standard transfer learning, as in the paper's Figure 1b: below 1 is better, and its ± is that of the paired gain. A difference
with p above {clear} is noise until more seeds say otherwise, and among so many comparisons some below it are noise as well."""

NOISE = "noise + "

Searches = Mapping[str, Found]
Section = Callable[[Searches, Path], list[str]]


def write_page(page: Path, claims: Mapping[str, Mapping[str, Found | None]], command: str) -> None:
    """Writes the page and the pictures beside it. claims: their searches by name, None where one is not finished."""
    page.parent.mkdir(parents=True, exist_ok=True)
    finished = {claim: {name: found for name, found in searches.items() if found} for claim, searches in claims.items()}
    parts = [HEAD.format(command=command, records=page.stem, clear=CLEAR), _conditions(finished)]
    short = [*methods_in_short(finished.get("methods", {})), *_new_in_short(finished)]
    short += [*_noise_in_short(finished), *shares_in_short(finished.get("controls", {})), *_teachers_in_short(finished)]
    parts += ["## In short", "\n".join(f"- {sentence}" for sentence in short)] if short else []
    for claim, searches in claims.items():
        title, section = SECTIONS[claim]
        parts += [f"## {title}", *section(finished[claim], page.parent)]
        missing = [f"`{name}`" for name in searches if name not in finished[claim]]
        for name, found in finished[claim].items():
            missing += [f"{method_title(method)} on `{name}`" for method in found.missing]
        parts += [f"Not run yet: {', '.join(missing)}."] if missing else []
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _conditions(claims: Mapping[str, Searches]) -> str:
    """When, on what, and how much of it. A search that serves several claims counts once."""
    found = {id(search): search for searches in claims.values() for search in searches.values()}.values()
    if not found:
        return "Nothing has been run yet."
    runs = [search.run(method) for search in found for method in search.entries]
    days = sorted(run["date"] for run in runs)
    hours = sum(row["wall_time_s"] for search in found for row in search.rows) / 3600
    machines = "; ".join(sorted({search.made["machine"] for search in found}))
    trainings = sum(len(search.rows) for search in found)
    again = [run for run in runs if "repeats" in run]
    code = ", ".join(sorted({run["code"] for run in runs if run.get("code")}))
    told = f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {machines}. {trainings:,} trainings, {hours:.1f} core-hours."
    if code:
        told += f" The latest runs are of commit {code}; the records name the date and the code of each method."
    if again:
        of = "1 method of an earlier run was" if len(again) == 1 else f"{len(again)} methods of earlier runs were"
        told += f" {of} run again and gave the same accuracies."
    return told


def _new_in_short(claims: Mapping[str, Searches]) -> list[str]:
    found = verdicts(claims.get("new", {}), ("aft", *OURS))
    return [f"On data that took no part in finding our methods, with pretrained students: {line}" for line in found]


# ---- better teachers, several teachers --------------------------------------------------------------------------------


def _teachers_in_short(claims: Mapping[str, Searches]) -> list[str]:
    singles = {name: search for name, search in claims.get("teachers", {}).items() if name != "none"}
    told = _correlations(singles)
    return [f"Better teachers and better students, correlation {told}; the paper's: AFT 0.97, KD 0.72."] if told else []


def _correlations(singles: Searches) -> str:
    """Of teachers and their students, of all and without the noise; nothing for fewer than three."""
    real = {name: search for name, search in singles.items() if name != "noise"}
    groups = {f"over {len(singles)} teachers": singles, "without the noise": real}
    return "; ".join(
        f"{title}: {', '.join(_correlation(group.values(), method) for method in ('aft', 'kd'))}"
        for title, group in groups.items()
        if len(group) > 2
    )


def _correlation(singles: Collection[Found], method: str) -> str:
    """Pearson's, of what a linear head reads from a teacher and what its student reaches."""
    test = pearsonr(
        [search.made["probe_all_labels"] for search in singles],
        [search.entries[method].test for search in singles],
    )
    return f"{method_title(method)} {test.statistic:.2f} (p {chance(test.pvalue)})"


def _noise_in_short(claims: Mapping[str, Searches]) -> list[str]:
    found = claims.get("combinations", {})
    pairs = [(search, found.get(name.removeprefix(NOISE))) for name, search in found.items() if name.startswith(NOISE)]
    known = [(spoilt, without) for spoilt, without in pairs if without is not None]
    if not known:
        return []
    told = []
    for method in ("aft", *OURS, "kd"):
        gains = [_gain(*pair, method) for pair in known if all(method in search.entries for search in pair)]
        told += [f"{method_title(method)} {', '.join(gains)}"] if gains else []
    return [f"A noise teacher beside real ones, points: {'; '.join(told)}."]


def _teachers(found: Searches, folder: Path) -> list[str]:
    alone, singles = found.get("none"), {name: search for name, search in found.items() if name != "none"}
    if alone is None or not singles:
        return []
    ordered = sorted(singles.items(), key=lambda item: item[1].made["probe_all_labels"])
    probes = [100 * search.made["probe_all_labels"] for _, search in ordered]
    accuracies = {m: [100 * search.entries[m].test for _, search in ordered] for m in ("kd", "aft")}
    standard = 100 * alone.entries["none"].test
    draw_teachers(folder / "results-teachers.png", [name for name, _ in ordered], probes, accuracies, standard)
    rows = [
        [name, f"{probe:.1f}", *(accuracy(search.entries[method]) for method in ("kd", "aft"))]
        for (name, search), probe in zip(ordered, probes, strict=True)
    ]
    return [
        "One student and seven teachers of the same digits, 10 labels per class: noise, the pixels themselves, one network at"
        f" three resolutions, two others. Standard transfer: {accuracy(alone.entries['none'])} %.",
        table(["teacher", "linear head, all labels, validation %", "KD, test %", "AFT, test %"], rows),
        f"Pearson's r between the two accuracies {_correlations(singles)}. Figure 1c of the paper, read off: AFT 0.97, KD 0.72.",
        "![Student against teacher accuracy](results-teachers.png)",
    ]


def _combinations(found: Searches, folder: Path) -> list[str]:
    alone, used = found.get("none"), {name: search for name, search in found.items() if name != "none"}
    if alone is None or not used:
        return []
    methods = [m for m in ("kd", "aft", *OURS) if any(m in search.entries for search in used.values())]
    rows = [[name, *(cell for method in methods for cell in _combined(name, used, method))] for name in used]
    return [
        "Gains are over the best single one of the teachers (by validation); where noise of 2,048 dimensions was added, over the"
        " same teachers without it.",
        table(["teachers", *(part for m in methods for part in (f"{method_title(m)}, test %", "gain, points"))], rows),
    ]


def _combined(name: str, used: Searches, method: str) -> list[str]:
    """The method's student of these teachers, and its gain over fewer of them."""
    search, parts = used[name], name.split(" + ")
    if method not in search.entries:
        return ["", ""]
    known = [used[part] for part in parts if part in used and method in used[part].entries]
    best = max(known, key=lambda one: one.entries[method].validation, default=None)
    reference = used.get(name.removeprefix(NOISE)) if "noise" in parts else best
    cell = accuracy(search.entries[method])
    if len(parts) == 1 or reference is None or method not in reference.entries:
        return [cell, ""]
    return [cell, _gain(search, reference, method)]


def _gain(search: Found, reference: Found, method: str) -> str:
    gain, _, p_value = paired_test(search.finals(method), reference.finals(method))
    return f"{100 * gain:+.2f}, p {chance(p_value)}"


# ---- ablations and cost -----------------------------------------------------------------------------------------------


def _ablations(found: Searches, folder: Path) -> list[str]:
    if (base := found.get("digits-5")) is None:
        return []
    rows = [_variant(method_title(method), base, method, base) for method in ("none", "aft")]
    rows += [_variant(n, search, next(iter(search.entries)), base) for n, search in found.items() if search is not base]
    return [
        "On `digits-5`, each with strengths of its own chosen on validation.",
        table(["variant", "beta", "test, %", "over standard transfer, points", "over AFT, points"], rows),
    ]


def _variant(title: str, search: Found, method: str, base: Found) -> list[str]:
    entry, cells = search.entries[method], []
    for reference in ("none", "aft"):
        gain, _, p_value = paired_test(search.finals(method), base.finals(reference))
        is_itself = search is base and method == reference
        cells.append("" if is_itself else f"{100 * gain:+.2f}, p {chance(p_value)}")
    return [title, f"{entry.beta:g}" if entry.teachers else "", accuracy(entry), *cells]


def _overhead(found: Searches, folder: Path) -> list[str]:
    if not found:
        return []
    names = [method for method in METHODS if any(method in search.step_ms for search in found.values())]
    rows = [
        [f"`{name}`", *(f"{search.step_ms[m]:.1f}" if m in search.step_ms else "" for m in names)]
        for name, search in found.items()
    ]
    return [
        "Milliseconds per training step, one core, median over the final runs; two trials ran side by side. The students are"
        " tiny, which makes the share of any regularizer look large.",
        table(["setting", *map(method_title, names)], rows),
    ]


SECTIONS: dict[str, tuple[str, Section]] = {
    "methods": ("AFT against the alternatives", methods_section),
    "new": ("Pretrained students on new data", new_section),
    "controls": ("Controls: transfer or pseudo-labelling?", controls_section),
    "teachers": ("Do better teachers make better students?", _teachers),
    "combinations": ("Several teachers, and a harmful one", _combinations),
    "ablations": ("What of AFT is needed", _ablations),
    "overhead": ("What a step costs", _overhead),
}
