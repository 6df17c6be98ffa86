"""aft-ray train: one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from aft_ray.cluster.starting import Cluster
from aft_ray.commands.check import open_setup
from aft_ray.commands.ending import show_next
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.tables import console

SUMMARY = "train the student with the recipe's regularizer"
SECTIONS = ("teachers", "student", "regularizer", "train", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    setup = open_setup(load_recipe(parsed), "train")

    from aft_ray.regularizers.fitted_probes import probes_in_words
    from aft_ray.training.runs import RunDirectory
    from aft_ray.training.train import needs_ray, train

    cluster: Cluster = partial(ray_cluster, setup.recipe, "train") if needs_ray(setup.recipe) else nullcontext
    place = train(setup, cluster=cluster)
    last = RunDirectory(place).history()[-1]
    for sentence in probes_in_words(last):
        console.print(sentence, soft_wrap=True)
    console.print(f"{_score(last)}  ->  {place}", soft_wrap=True)
    show_next(parsed, "evaluate", "predict PATH", "export")


def _score(last: Mapping[str, Any]) -> str:
    """The score on test in words. last: the run's last line of metrics."""
    accuracy, loss = last["test_accuracy"], last["test_loss"]
    if loss is None:
        return "no sample of the test split has a label"
    return f"test loss {loss:.4f}" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %"
