"""Keys of the section dataset that make no sense are refused."""

from __future__ import annotations

import pytest

from aft_ray import datasets
from tests.helpers.tables import dataset


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"source": "csv", "columns": {"text": "t"}}, "source 'csv' needs 'path'"),
        ({"source": "hub", "columns": {"text": "t"}}, "source 'hub' needs 'repo'"),
        ({"source": "csv", "path": "a"}, "needs columns.text, columns.image or both"),
        ({"source": "image_folder", "path": "a", "prompt": "{t}"}, "'prompt' has no effect with source 'image_folder'"),
        (
            {"source": "csv", "path": "a", "columns": {"text": "t"}, "prompt": "{u}"},
            "prompt names 'u'; columns.text: t",
        ),
        ({"source": "csv", "path": "a", "columns": {"text": "t"}, "prompt": "no"}, "prompt has no place for a column"),
        (
            {"source": "csv", "path": "a", "columns": {"text": "t", "label": ["a", "b"]}},
            "need task multilabel or regression",
        ),
        ({"name": "imdb", "splits": {"test": "test"}}, "splits must name train"),
    ],
)
def test_keys_that_make_no_sense(config: dict, fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        dataset(**config)
    assert fault in str(caught.value)


def test_named_data_sets_take_only_their_keys() -> None:
    lines = datasets.faults(dataset(name="mnist5k", path="here", truncation_side="left"))
    assert lines == [
        "dataset: 'path' has no effect with data set 'mnist5k'. Leave it out.",
        "dataset: 'truncation_side' has no effect with data set 'mnist5k'. Leave it out.",
    ]
