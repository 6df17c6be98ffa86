"""The pictures of the report: their sizes, names, labels and edges."""

from __future__ import annotations

import itertools
import re

import pytest

from aft_ray.recipe.config import Recipe
from aft_ray.report.pictures import draw_betas
from aft_ray.report.plots import INK, Line, draw_lines, spread
from aft_ray.report.report import report
from aft_ray.report.results import METHODS
from tests.helpers.page import Page
from tests.helpers.report import as_regression, searched, trial, write_everything


def test_pictures_have_size_name_and_ids_of_their_own(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    pictures = page.attributes("svg")
    # errors; betas, gains, contributions and quality of two methods; gates; curves of finals and of the run
    assert len(pictures) == 1 + 4 * 2 + 2 + 4
    for picture in pictures:
        width, height = float(picture["width"] or 0), float(picture["height"] or 0)
        assert 0 < width <= 360 and height > 0
        assert picture["viewbox"] == f"0 0 {width:g} {height:g}"
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    labels = " ".join(picture["aria-labelledby"] or "" for picture in pictures).split()
    assert set(labels) <= set(ids)
    used = {(a["xlink:href"] or "")[1:] for a in page.attributes("use")}
    assert used <= set(ids)
    assert INK not in page.source


def test_a_stopped_trial_with_a_large_loss_is_drawn_at_the_edge() -> None:
    rows = [as_regression(row) for row in searched()]
    rows[1] |= {"val_loss": 100.0}
    aft, _ = draw_betas(rows, 100)
    heights = [float(y) for y in re.findall(r">(\d+\.\d+)</text>", aft)]
    assert "AFT: validation loss" in aft and heights and max(heights) < 1


def test_every_regularizer_has_words_and_a_colour() -> None:
    from aft_ray.regularizers import REGULARIZERS
    from aft_ray.report.plots import COLOURS

    assert set(METHODS) == set(COLOURS) == set(REGULARIZERS)
    assert len({light for light, _ in COLOURS.values()}) == len(COLOURS)


def test_spread_keeps_labels_apart_and_leaves_free_ones_alone() -> None:
    assert spread([0.0, 0.5, 1.0], 0.1) == pytest.approx([0.0, 0.5, 1.0])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    places = spread([0.0, 0.05, 0.11, 0.9], 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(places))


def test_beta_of_zero_has_a_place_on_the_logarithmic_axis() -> None:
    rows = [trial("search", "aft", beta, ("small",)) for beta in (0.0, 1.0, 10.0)]
    (picture,) = draw_betas(rows, 100)
    assert re.findall(r">(0|1|10)</text>", picture)[:3] == ["0", "1", "10"]


def test_a_drawing_depends_on_its_data_alone() -> None:
    def draw(name: str) -> str:
        return draw_lines(name, "heading", [Line("a", "aft", [1, 2], [3, 4])], x_label="step", description="rising")

    assert draw("one") == draw("one")
    assert not set(re.findall(r'id="([^"]*)"', draw("one"))) & set(re.findall(r'id="([^"]*)"', draw("two")))
