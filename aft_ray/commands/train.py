"""aft-ray train: one run."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

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
    from aft_ray.regularizers.fitted_probes import probes_in_words
    from aft_ray.training.runs import RunDirectory
    from aft_ray.training.train import needs_ray, train

    setup = open_setup(load_recipe(parsed), "train")
    with ray_cluster(setup.recipe, "train") if needs_ray(setup.recipe) else nullcontext():
        place = train(setup)
    last = RunDirectory(place).history()[-1]
    for sentence in probes_in_words(last):
        console.print(sentence, soft_wrap=True)
    accuracy = last["test_accuracy"]
    score = f"test loss {last['test_loss']:.4f}" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %"
    console.print(f"{score}  ->  {place}", soft_wrap=True)
    show_next(parsed, "evaluate", "predict PATH", "export")
