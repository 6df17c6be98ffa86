"""The paper's claims, each with a verdict from our own records: a section of docs/results.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from aft_ray.report.results import Paired, method_title, paired_test
from aft_ray.report.words import CLEAR
from aft_ray.study.averages import compared as duel
from aft_ray.study.averages import mean_of
from aft_ray.study.found import Found
from jobs.recipes.results.teachers import METHODS, NOISE, REAL, singles, with_teachers
from jobs.recipes.results.text import OURS, Settings, chance, table

BASELINES = ("kd", "kkd", "rkd", "ft", "btune")
HOLDS, NOT = "holds", "does not hold here"
UNCLEAR = "no clear difference"
STRONG = 0.7
"""A correlation of this size or more counts as following the teacher; the paper's are 0.97 and 0.72."""


def claims_section(studies: Mapping[str, Settings]) -> list[str]:
    """A line for each claim whose records are there, and the same of our methods."""
    protocol, ablations = studies.get("protocol", {}), studies.get("ablations", {})
    digits = studies.get("teachers", {}).get("digits")
    rows = [
        *_better(protocol),
        *(_follows(digits) + _combines(digits) + _sturdy(digits) if digits else []),
        *_needed(ablations),
    ]
    if not rows:
        return []
    return [
        "Each claim of the paper about AFT, by our own runs: small students, small data, two cores. A difference is clear with"
        f" p < {CLEAR}, paired by seed. How much a step costs was timed side by side: [benchmarks.md](benchmarks.md).",
        table(["claim", "verdict", "by"], rows),
    ]


def _better(found: Settings) -> list[list[str]]:
    """Than each baseline, over the settings that have both."""
    known = [*found.values()]
    rows = []
    for method in ("none", *BASELINES):
        other = duel("aft", method, known)
        if other.num_settings:
            verdict = UNCLEAR if not other.p_value < CLEAR else HOLDS if other.gain > 0 else NOT
            gain = f"{100 * other.gain:+.2f} points over {other.num_settings} settings, p {chance(other.p_value)}"
            rows.append(
                [
                    f"better than {method_title(method)}",
                    verdict,
                    f"{gain}; clearly better in {other.better}, clearly worse in {other.worse}",
                ]
            )
    for method in OURS:
        mean = mean_of(method, known)
        if mean.num_settings:
            told = f"error {mean.over_data:.2f} of standard transfer's over data sets, AFT {mean_of('aft', known).over_data:.2f}"
            rows.append([f"(ours, no claim of the paper) {method_title(method)}", "", told])
    return rows


def _follows(digits: Found) -> list[list[str]]:
    rows = []
    for method in METHODS:
        sets = [names for names in singles(digits) if names != (NOISE,) and names in digits.by_teachers(method)]
        if len(sets) > 2:
            test = with_teachers(digits, sets, method)
            clear = test.statistic >= STRONG and test.pvalue < CLEAR
            verdict = HOLDS if clear else NOT if test.statistic < STRONG / 2 else UNCLEAR
            told = f"correlation {test.statistic:.2f}, p {chance(test.pvalue)}, over {len(sets)} teachers without the noise"
            students = "students" if method == "aft" else f"(ours) students of {method_title(method)}"
            rows.append([f"{students} follow the quality of their teacher", verdict, told])
    return rows


def _combines(digits: Found) -> list[list[str]]:
    """Real teachers together against the best of them."""
    rows = []
    for method in METHODS:
        sets = [names for names in digits.by_teachers(method) if len(names) > 1 and NOISE not in names]
        gains = [gain for names in sets if (gain := digits.over_best_single(method, names)) is not None]
        if not gains:
            continue
        clear = [gain for gain in gains if gain.gain > 0 and gain.p_value < CLEAR]
        worse = [gain for gain in gains if gain.gain < 0 and gain.p_value < CLEAR]
        verdict = HOLDS if len(clear) * 2 > len(gains) else NOT if worse or not clear else "in part"
        mean = statistics.fmean(gain.gain for gain in gains)
        told = f"{100 * mean:+.2f} points over the best single one, mean of {len(gains)} sets; {len(clear)} clear gains"
        told += f", {len(worse)} clear losses"
        rows.append([f"{_subject(method)}combines complementary teachers", verdict, told])
    return rows


def _sturdy(digits: Found) -> list[list[str]]:
    rows = []
    for method in ("aft", *OURS):
        entries = digits.by_teachers(method)
        real, spoilt = entries.get((REAL["digits"],)), entries.get((NOISE, REAL["digits"]))
        if real and spoilt:
            cost = paired_test(spoilt.finals, real.finals)
            harmed = cost.gain < 0 and cost.p_value < CLEAR
            rows.append(
                [
                    f"{_subject(method, 'is ')}sturdy against useless features",
                    NOT if harmed else HOLDS,
                    f"noise beside a teacher: {_told(cost)}",
                ]
            )
    return rows


def _subject(method: str, verb: str = "") -> str:
    """Of a claim; none for the paper's own method."""
    return "" if method == "aft" else f"(ours) {method_title(method)} {verb}"


def _needed(found: Settings) -> list[list[str]]:
    """AFT against itself without a part."""
    parts = {"frozen-gates": "the gates", "no-kernel": "the kernel", "dense": "gates, where a dense matrix could be"}
    if (base := found.get("digits-5")) is None:
        return []
    rows = []
    for name, part in parts.items():
        if name in found:
            other = next(entry for method, entry in found[name].chosen.items() if method != "none")
            gain = paired_test(base.chosen["aft"].finals, other.finals)
            clear = not math.isnan(gain.p_value) and gain.p_value < CLEAR
            verdict = UNCLEAR if not clear else HOLDS if gain.gain > 0 else NOT
            rows.append([f"needs {part}", verdict, f"{_told(gain)} over AFT without"])
    return rows


def _told(gain: Paired) -> str:
    return f"{100 * gain.gain:+.2f} points, p {chance(gain.p_value)}"
