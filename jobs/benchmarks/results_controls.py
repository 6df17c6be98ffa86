"""The page's controls: is it transfer, pseudo-labelling or luck, and does a useless teacher harm?

A search is named `data: teacher`; `data: none` has standard transfer alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aft_ray.report.results import method_title, paired_test
from jobs.benchmarks.results_found import Found
from jobs.benchmarks.results_text import accuracy, chance, table

METHODS = ("aft", "aft_probe", "probe_kd")
OWN_INPUT = ("pixels", "words")
"""Teachers that know what the student sees, and no more."""


def controls_section(found: Mapping[str, Found], folder: Path) -> list[str]:
    """A line per teacher: each method's student, and its gain over standard transfer with the same seeds."""
    rows = [
        [name, *(_cell(name, found, method) for method in METHODS)] for name in found if not name.endswith(": none")
    ]
    if not rows:
        return []
    shares = shares_in_short(found)
    return [
        "Teachers that a sceptic asks for. *Pixels* and *words* (counts of hashed words) are the student's own input: a gain from"
        " them is no transfer but pseudo-labelling, since the probe labels the other rows and the student learns from these"
        " labels. *Shuffled* has a real teacher's features, each given to another sample; *noise* knows nothing. In brackets: the"
        " gain over standard transfer with the same seeds in points, and p; *equal* where every training is the same, since no"
        " teacher was left.",
        table(["data: teacher", *map(method_title, METHODS)], rows),
        *(["\n".join(f"- {sentence}" for sentence in shares)] if shares else []),
    ]


def shares_in_short(found: Mapping[str, Found]) -> list[str]:
    """How much of a real teacher's gain the student's own input gives as a teacher."""
    sentences = []
    for name, control in found.items():
        data, _, teacher = name.partition(": ")
        real = next((search for other, search in found.items() if _is_real(other, data)), None)
        alone = found.get(f"{data}: none")
        if teacher not in OWN_INPUT or real is None or alone is None:
            continue
        told = [_share(method, control, real, alone) for method in METHODS if _have(method, control, real)]
        sentences.append(
            f"{teacher.capitalize()} as teacher on {data}, points over standard transfer: {'; '.join(told)}."
        )
    return sentences


def _is_real(name: str, data: str) -> bool:
    own, _, teacher = name.partition(": ")
    return own == data and teacher not in (*OWN_INPUT, "none", "noise", "shuffled") and "+" not in teacher


def _have(method: str, *searches: Found) -> bool:
    return all(method in search.entries for search in searches)


def _share(method: str, control: Found, real: Found, alone: Found) -> str:
    own, _, _ = paired_test(control.finals(method), alone.finals("none"))
    whole, _, _ = paired_test(real.finals(method), alone.finals("none"))
    _, _, p_value = paired_test(real.finals(method), control.finals(method))
    return (
        f"{method_title(method)} {100 * own:+.1f} of the real teacher's {100 * whole:+.1f} (difference: {_p(p_value)})"
    )


def _p(value: float) -> str:
    told = chance(value)
    return f"p {told}" if told else "one seed"


def _cell(name: str, found: Mapping[str, Found], method: str) -> str:
    search, alone = found[name], found.get(f"{name.partition(': ')[0]}: none")
    if method not in search.entries or alone is None:
        return ""
    gain, _, p_value = paired_test(search.finals(method), alone.finals("none"))
    told = "equal" if gain == 0 and p_value == 1 else f"{100 * gain:+.1f}, {_p(p_value)}"
    return f"{accuracy(search.entries[method])} ({told})"
