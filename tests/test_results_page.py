"""The page of results says what the tables of the searches say."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from aft_ray.models.teachers import build_teacher
from aft_ray.recipe.config import Recipe, override
from aft_ray.search.trials import COLUMNS, TrialRow, write_table
from jobs.benchmarks.results import CLAIMS, QUICK
from jobs.benchmarks.results_found import MADE, Found, collect, is_finished, place_of, read, write_record
from jobs.benchmarks.results_page import SECTIONS, write_page

FACTS = {"date": "2026-11-25", "machine": "2 cores", "train": 2343, "test": 1018, "labels": 100}
SEEDS = (0.5, 0.52, 0.54)


def recipe(workspace: Path, run: str, methods: tuple[str, ...]) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": str(workspace),
            "run": run,
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": "lite0", "model": "timm:tf_efficientnet_lite0"}],
            "student": {"model": "tiny:cnn"},
            "search": {"compare": methods, "beta": [1, 4], "final": {"seeds": len(SEEDS)}},
        }
    )


def rows(method: str, gain: float) -> list[TrialRow]:
    """A search that chose beta 4, and three final runs that are `gain` better than standard transfer in every seed."""
    found: list[TrialRow] = []
    for stage, beta, tests in (("search", 1.0, [None]), ("search", 4.0, [None]), ("final", 4.0, SEEDS)):
        for seed, test in enumerate(tests):
            jitter = 0.001 * seed if gain else 0.0
            row: TrialRow = dict.fromkeys(COLUMNS) | {
                "trial": f"{stage}-{method}-{beta:g}-{seed}",
                "stage": stage,
                "regularizer.name": method,
                "regularizer.beta": 0.0 if method == "none" else beta,
                "teachers": [] if method == "none" else ["lite0"],
                "seed": seed,
                "val_accuracy": 0.5 + beta / 100,
                "test_accuracy": None if test is None else test + gain + jitter,
                "wall_time_s": 720.0,
                "status": "finished",
            }
            found.append(row)
    return found


def searched(workspace: Path, run: str, probe: float = 0.8, **gains: float) -> Found:
    """A finished search on disk, as read back."""
    given = recipe(workspace, run, tuple(gains))
    write_table(place_of(given), [row for method, gain in gains.items() for row in rows(method, gain)])
    place_of(given).write(MADE, json.dumps({**FACTS, "probe": probe, "probe_all_labels": probe}).encode())
    found = read(given)
    assert found is not None
    return found


def only_search(claims: dict[str, dict[str, Found | None]]) -> Found:
    ((found,),) = (searches.values() for searches in claims.values())
    assert found is not None
    return found


def page(folder: Path, claims: dict[str, dict[str, Found | None]]) -> str:
    write_page(folder / "results.md", claims, "make results")
    return (folder / "results.md").read_text()


def test_a_setting_shows_relative_errors_gains_and_their_p_values(tmp_path: Path) -> None:
    found = searched(tmp_path, "digits", none=0.0, kd=-0.1, aft=0.12)
    text = page(tmp_path, {"methods": {"digits": found, "spam": None}})
    assert "| `digits` | mnist5k | tiny:cnn | 100 | 2,343 | 1,018 | 80.0 | 2026-11-25 |" in text
    assert "| `digits` | 48.0 | **0.75** | *1.21* |" in text  # standard errs in 48 %: KD in 58, AFT in 36
    assert "| AFT | 4 | 54.00 | 64.10 ± 1.21 | +12.10 | < 0.001 |" in text
    assert "| KD | 1 | 1 | 0 | +22.00 | |" in text.replace("  ", " ")
    assert "Not run yet: `spam`." in text
    assert (
        "**AFT: error 0.75 ± 0.00 of standard transfer's** over 1 setting, 0.75 over data sets; the paper's: 0.887."
        in text
    )
    assert "Clearly less (p < 0.05) in 1, by Holm's correction in 1; clearly more in 0. Nowhere above 1." in text
    assert "All methods over the 1 setting that has them all, least error first: AFT 0.75, KD 1.21." in text
    assert "| the paper's settings |  | 0.887 | 0.956 |" in text
    assert "2026-11-25, 2 cores. 15 trainings, 3.0 core-hours." in text
    assert (tmp_path / "results-methods.png").stat().st_size > 10_000


def test_teachers_are_correlated_and_combinations_compared_with_their_best_single(tmp_path: Path) -> None:
    alone = searched(tmp_path, "none", none=0.0)
    singles = {
        name: searched(tmp_path, name, probe, kd=kd, aft=aft)
        for name, probe, kd, aft in (("noise", 0.1, -0.2, -0.1), ("a", 0.7, 0.01, 0.1), ("b", 0.8, 0.0, 0.115))
    }
    pair = searched(tmp_path, "a_b", kd=0.02, aft=0.15)
    spoilt = searched(tmp_path, "noise_a", kd=-0.1, aft=0.09)
    text = page(
        tmp_path,
        {
            "teachers": {"none": alone, **singles},
            "combinations": {"none": alone, **singles, "a + b": pair, "noise + a": spoilt},
        },
    )
    assert text.index("| noise | 10.0 |") < text.index("| a | 70.0 |") < text.index("| b | 80.0 |")
    assert "correlation over 3 teachers: AFT 1.00 (p 0.0" in text and "KD 0.98 (p 0.1" in text
    assert (
        "between the two accuracies over 3 teachers: AFT 1.00" in text and "without the noise" not in text
    )  # two are left
    assert "A noise teacher beside real ones, points: AFT -1.00, p" in text
    assert "| noise + a | 42.10 ± 1.21 | -11.00, p" in text
    assert "108 trainings" not in text and "| a + b | 54.10 ± 1.21 |" in text


def test_an_unfinished_search_is_not_on_the_page(tmp_path: Path) -> None:
    given = recipe(tmp_path, "half", ("none", "aft"))
    write_table(place_of(given), rows("none", 0.0))
    assert not is_finished(given) and read(given) is None
    text = page(tmp_path, {claim: {"half": None} for claim in SECTIONS})
    assert "Nothing has been run yet." in text and text.count("Not run yet: `half`.") == len(SECTIONS)
    given = override(given, {"search.compare": ["none", "aft", "kd"]})  # one method more than the search had
    searched(tmp_path, "half", none=0.0, aft=0.1)
    assert not is_finished(given) and (half := read(given)) is not None
    text = page(tmp_path, {"methods": {"half": half}})
    assert "| AFT | 4 |" in text and "Not run yet: KD on `half`." in text


def test_records_beside_the_page_are_all_it_needs(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", "digits", ("none", "aft"))
    found = searched(tmp_path / "work", "digits", none=0.0, aft=0.1)
    claims = {"methods": {"digits": given, "spam": recipe(tmp_path / "work", "spam", ("none",))}}
    before = collect(claims, tmp_path / "results.md")
    record = tmp_path / "results" / "work" / "digits.json"
    assert [record] == [*(tmp_path / "results").rglob("*.json")]
    assert sum('"trial"' in line for line in record.read_text().splitlines()) == len(found.rows) == 10
    shutil.rmtree(tmp_path / "work")
    assert collect(claims, tmp_path / "results.md") == before == {"methods": {"digits": found, "spam": None}}
    assert "| AFT | 4 | 54.00 | 62.10 ± 1.21 |" in page(tmp_path, before)


def test_methods_run_later_join_the_record_beside_those_of_before(tmp_path: Path) -> None:
    record = tmp_path / "results" / "work" / "digits.json"
    searched(tmp_path / "work", "digits", none=0.0, aft=0.1)
    collect({"methods": {"digits": recipe(tmp_path / "work", "digits", ("none", "aft"))}}, tmp_path / "results.md")
    shutil.rmtree(tmp_path / "work")
    later = recipe(tmp_path / "work", "digits", ("none", "aft", "probe_kd"))
    write_table(
        place_of(later), [row for method in ("none", "probe_kd") for row in rows(method, 0.2 * (method != "none"))]
    )
    facts = {
        **FACTS,
        "date": "2026-11-28",
        "runs": dict.fromkeys(("none", "probe_kd"), {"date": "2026-11-28", "code": "abc"}),
    }
    place_of(later).write(MADE, json.dumps({**facts, "probe": 0.8, "probe_all_labels": 0.8}).encode())
    for _ in range(2):  # the page may be written again and again
        found = only_search(collect({"methods": {"digits": later}}, tmp_path / "results.md"))
        assert {*found.entries} == {"none", "aft", "probe_kd"} and not found.missing
        assert found.run("aft") == {"date": "2026-11-25"}
        assert found.run("none") == {"date": "2026-11-28", "code": "abc", "repeats": "2026-11-25"}
        assert found.run("probe_kd") == {"date": "2026-11-28", "code": "abc"}
    text = page(tmp_path, {"methods": {"digits": found}})
    assert "2026-11-25 to 2026-11-28, 2 cores." in text and "are of commit abc" in text
    assert "1 method of an earlier run was run again and gave the same accuracies." in text
    assert "**probe KD (ours): error 0.58 ± 0.00 of standard transfer's**" in text
    other = dataclasses.replace(found, made={**found.made, "labels": 7})
    write_record(other, record)
    found = only_search(collect({"methods": {"digits": later}}, tmp_path / "results.md"))
    assert {*found.entries} == {"none", "probe_kd"}  # other samples are not compared


def test_controls_say_how_much_of_a_gain_is_no_transfer(tmp_path: Path) -> None:
    claims: dict[str, Found | None] = {
        "digits: none": searched(tmp_path, "none", none=0.0),
        "digits: lite0": searched(tmp_path, "lite0", aft_probe=0.1, probe_kd=0.08),
        "digits: pixels": searched(tmp_path, "pixels", aft_probe=0.05),
        "digits: noise": searched(tmp_path, "noise", aft_probe=0.0),
    }
    text = page(tmp_path, {"controls": claims})
    assert "| digits: pixels |  | 57.10 ± 1.21 (+5.1, p < 0.001) |  |" in text
    assert "| digits: noise |  | 52.00 ± 1.15 (equal) |  |" in text
    assert "AFT with probes +5.1 of the real teacher's +10.1 (difference: p < 0.001)." in text


def test_every_search_of_a_claim_is_a_valid_recipe_of_its_own() -> None:
    assert [*CLAIMS] == [*SECTIONS]
    places: dict[str, Recipe] = {}
    for claims, quick in ((CLAIMS, False), (QUICK, True)):
        for searches in claims.values():
            for search in searches.values():
                recipe = search.load(quick=quick)
                assert places.setdefault(str(place_of(recipe)), recipe) == recipe
    assert len({place for place in places if "quick-" in place}) == len(QUICK["methods"])


@pytest.mark.parametrize("name", ["noise", "pixels"])
def test_teachers_that_know_little_give_the_same_features_for_the_same_picture(name: str) -> None:
    teacher_config = next(t for t in CLAIMS["teachers"]["none"].load(quick=False).teachers if t.name == name)
    teacher = build_teacher(teacher_config, torch.device("cpu"))
    pictures = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    features = teacher(pictures)
    assert features.shape == (3, teacher.feature_dim) and torch.equal(teacher(pictures[1:]), features[1:])
    assert not torch.equal(features[0], features[1])
