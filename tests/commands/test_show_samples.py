"""What `prepare` shows of the samples."""

from __future__ import annotations

import pytest

from aft_ray.commands.prepare import show_samples
from aft_ray.recipe.config import Recipe


def test_a_class_whose_name_has_thousands_of_digits_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "9" * 5000
    manifest = {"classes": [name], "samples_per_class": {name: 3}, "num_unlabelled": 0, "num_samples": 3}
    recipe = Recipe.model_validate(
        {"workspace": "work", "dataset": {"name": "digits"}, "student": {"model": "tiny:cnn"}}
    )
    show_samples(recipe, {"train": {**manifest, "quarantined": [], "shards": [{}]}})
    told = capsys.readouterr().out
    assert len(told) < 2000 and "class" in told
    show_samples(recipe, {"train": {**manifest, "task": "regression", "quarantined": [], "shards": [{}]}})
    told = capsys.readouterr().out
    assert "output" in told and "class" not in told
