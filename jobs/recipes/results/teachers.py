"""Which teachers help: the sections of docs/results.md on controls, on better teachers and on several of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import pearsonr

from aft_ray.report.results import Entry, method_title, paired_test
from aft_ray.search.space import teacher_subsets
from aft_ray.study.found import Found
from jobs.recipes.results.pictures import draw_teachers
from jobs.recipes.results.text import OURS, Settings, accuracy, chance, table

Set = tuple[str, ...]

NOISE = "noise"
OWN_INPUT = {"digits": "pixels", "glosses": "words"}
"""By setting, the teacher that knows what the student sees, and no more."""
REAL = {"digits": "lite0", "glosses": "minilm"}
METHODS = ("aft", *OURS)
ALL = ("kd", *METHODS)


def teachers_in_short(found: Settings) -> list[str]:
    """On noise, on the student's own input, and on better teachers, a sentence each."""
    told = [_noise_in_short(found["digits"])] if "digits" in found else []
    told += _shares(found)
    if correlations := _correlations(found["digits"]) if "digits" in found else "":
        told.append(f"Better teachers and better students, correlation {correlations}; the paper's: AFT 0.97, KD 0.72.")
    return [sentence for sentence in told if sentence]


def controls_section(found: Settings, folder: Path) -> list[str]:
    """A line per teacher: each method's student, and its gain over standard transfer with the same seeds."""
    rows = [[name, *(_cell(one.by_teachers(m).get(names)) for m in METHODS)] for name, one, names in _controls(found)]
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return []
    shares = _shares(found)
    return [
        "Teachers that a sceptic asks for. *Pixels* and *words* (counts of hashed words) are the student's own input: a gain from"
        " them is no transfer but pseudo-labelling, since the probe labels the other rows and the student learns from these"
        " labels. *Shuffled* has a real teacher's features, each given to another sample; *noise* knows nothing. In brackets: the"
        " gain over standard transfer with the same seeds in points, and p; *equal* where every training is the same, since no"
        " teacher was left.",
        table(["data: teacher", *map(method_title, METHODS)], rows),
        *(["\n".join(f"- {sentence}" for sentence in shares)] if shares else []),
    ]


def better_section(found: Settings, folder: Path) -> list[str]:
    """Single teachers by how much they know, and their students."""
    if (digits := found.get("digits")) is None or "none" not in digits.chosen:
        return []
    probes = {names: 100 * digits.probes[names] for names in singles(digits)}
    ordered = sorted(probes, key=lambda names: probes[names])
    students = {method: [digits.by_teachers(method)[names] for names in ordered] for method in _of_all(digits, ordered)}
    standard = digits.chosen["none"]
    draw_teachers(
        folder / "results-teachers.png",
        [*map(_named, ordered)],
        [probes[names] for names in ordered],
        {method: [100 * entry.test for entry in entries] for method, entries in students.items()},
        100 * standard.test,
    )
    rows = [
        [_named(names), f"{probes[names]:.1f}", *map(accuracy, entries)]
        for names, *entries in zip(ordered, *students.values(), strict=True)
    ]
    return [
        "One student and seven teachers of the same digits, 10 labels per class: noise, the pixels themselves, one network at"
        f" three resolutions, two others. Standard transfer: {accuracy(standard)} %.",
        table(
            ["teacher", "linear head, all labels, validation %", *(f"{method_title(m)}, test %" for m in students)],
            rows,
        ),
        f"Pearson's r between the two accuracies {_correlations(digits)}. Figure 1c of the paper, read off: AFT 0.97, KD 0.72.",
        "![Student against teacher accuracy](results-teachers.png)",
    ]


def several_section(found: Settings, folder: Path) -> list[str]:
    """Every set of teachers and its gain over fewer of them."""
    if (digits := found.get("digits")) is None:
        return []
    methods = [method for method in ALL if digits.by_teachers(method)]
    sets = [names for names in teacher_subsets(digits.recipe) if any(names in digits.by_teachers(m) for m in methods)]
    rows = [[_named(names), *(cell for m in methods for cell in _combined(digits, m, names))] for names in sets]
    lacking = [
        f"{method_title(method)} on `{_named(names)}`"
        for names in teacher_subsets(digits.recipe)
        for method in ALL
        if names not in digits.by_teachers(method)
    ]
    return [
        "Gains are over the best single one of the teachers (by validation); where noise of 2,048 dimensions was added, over the"
        " same teachers without it.",
        table(["teachers", *(part for m in methods for part in (f"{method_title(m)}, test %", "gain, points"))], rows),
        *([f"Not run yet: {', '.join(lacking)}."] if lacking else []),
    ]


def controls_missing(found: Settings) -> list[str]:
    """The controls without final runs."""
    return [
        f"{method_title(method)} on `{name}`"
        for name, one, names in _controls(found)
        for method in METHODS
        if names not in one.by_teachers(method) and method in one.recipe.search.methods("aft")
    ]


def _controls(found: Settings) -> Iterator[tuple[str, Found, Set]]:
    """A title, the setting and the set of teachers of each control."""
    for name, one in found.items():
        data, _, changed = name.partition("-")
        own = [(NOISE,), (NOISE, REAL["digits"])] if name == "digits" else []
        sets = [(REAL[name],), (OWN_INPUT[name],), *own] if name in REAL else teacher_subsets(one.recipe)
        suffix = ", normalized" if changed == "normalized" else ""
        yield from ((f"{data}: {_named(names)}{suffix}", one, names) for names in sets)
        if name == "glosses":
            yield f"{data}: shuffled", one, ("shuffled",)


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return ""
    told = "equal" if entry.gain == 0 and entry.p_value == 1 else f"{100 * entry.gain:+.1f}, p {chance(entry.p_value)}"
    return f"{accuracy(entry)} ({told})"


def _shares(found: Settings) -> list[str]:
    """How much of a real teacher's gain the student's own input gives as a teacher."""
    sentences = []
    for name, teacher in OWN_INPUT.items():
        if name not in found:
            continue
        told = []
        for method in METHODS:
            entries = found[name].by_teachers(method)
            own, real = entries.get((teacher,)), entries.get((REAL[name],))
            if own and real:
                _, _, p_value = paired_test(real.finals, own.finals)
                whole = f"the real teacher's {100 * real.gain:+.1f} (difference: p {chance(p_value)})"
                told.append(f"{method_title(method)} {100 * own.gain:+.1f} of {whole}")
        if told:
            sentences.append(
                f"{teacher.capitalize()} as teacher on {name}, points over standard transfer: {'; '.join(told)}."
            )
    return sentences


def _noise_in_short(digits: Found) -> str:
    told = []
    for method in ("aft", *OURS, "kd"):
        entries = digits.by_teachers(method)
        spoilt = [names for names in teacher_subsets(digits.recipe) if len(names) > 1 and names[0] == NOISE]
        gains = [_gain(entries[s], entries[s[1:]]) for s in spoilt if s in entries and s[1:] in entries]
        told += [f"{method_title(method)} {', '.join(gains)}"] if gains else []
    return f"A noise teacher beside real ones, points: {'; '.join(told)}." if told else ""


def _combined(digits: Found, method: str, names: Set) -> list[str]:
    """The method's student of these teachers, and its gain over fewer of them."""
    entries = digits.by_teachers(method)
    if names not in entries:
        return ["", ""]
    if names[0] == NOISE and names[1:] in entries:
        return [accuracy(entries[names]), _gain(entries[names], entries[names[1:]])]
    over = None if names[0] == NOISE else digits.over_best_single(method, names)
    return [accuracy(entries[names]), f"{100 * over.gain:+.2f}, p {chance(over.p_value)}" if over else ""]


def _gain(entry: Entry, reference: Entry) -> str:
    gain, _, p_value = paired_test(entry.finals, reference.finals)
    return f"{100 * gain:+.2f}, p {chance(p_value)}"


def singles(digits: Found) -> list[Set]:
    """Teachers whose students are known with AFT and KD."""
    both = digits.by_teachers("aft").keys() & digits.by_teachers("kd").keys()
    return [names for names in teacher_subsets(digits.recipe) if len(names) == 1 and names in both]


def _of_all(digits: Found, sets: Collection[Set]) -> list[str]:
    """The methods whose students of all these teachers are known."""
    return [method for method in ALL if digits.by_teachers(method).keys() >= set(sets)]


def _correlations(digits: Found) -> str:
    """Of teachers and their students, of all and without the noise; nothing for fewer than three."""
    every = singles(digits)
    real = [names for names in every if names != (NOISE,)]
    groups = {f"over {len(every)} teachers": every, "without the noise": real}
    return "; ".join(
        f"{title}: {', '.join(_correlation(digits, group, method) for method in _of_all(digits, every))}"
        for title, group in groups.items()
        if len(group) > 2
    )


def _correlation(digits: Found, sets: Collection[Set], method: str) -> str:
    test = with_teachers(digits, sets, method)
    return f"{method_title(method)} {test.statistic:.2f} (p {chance(test.pvalue)})"


def with_teachers(digits: Found, sets: Collection[Set], method: str) -> Any:
    """Pearson's correlation, with its p, of what a linear head reads from a teacher and what its student reaches."""
    students = digits.by_teachers(method)
    return pearsonr([digits.probes[names] for names in sets], [students[names].test for names in sets])


def _named(names: Sequence[str]) -> str:
    return " + ".join(names)
