"""A source, a searcher and a scheduler of a user's own, as recipes name them: `tests.helpers.own_parts:Slides`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from aft_ray.datasets.base import Item, Listing
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.search.space import BETA, TEACHERS, Space, Trial


class Slides:
    """Pictures of one folder whose names begin with their class."""

    @staticmethod
    def list_samples(config: DatasetConfig) -> Listing:
        paths = sorted(Path(config.path or "").glob("*.png"))
        names = [path.stem.partition(config.options.get("separator", "_"))[0] for path in paths]
        classes = tuple(sorted(set(names)))
        items = [Item(path.stem, classes.index(name)) for path, name in zip(paths, names, strict=True)]
        return Listing("image", classes, tuple(items), lambda index: paths[index].read_bytes())


class Doubling:
    """Tries beta 1, then twice the last one as long as scores rise."""

    def __init__(self, recipe: Recipe, spaces: list[Space], known: list[Trial]) -> None:
        self.space, self.most, self.beta = spaces[0], recipe.search.num_samples or 1, 1.0
        self.scores: list[float] = []
        self.lock = threading.Lock()  # as a connection or a log has, which cannot be pickled
        self.proposed = 0

    def next(self) -> Trial | None:
        falls = len(self.scores) > 1 and self.scores[-1] < self.scores[-2]
        if falls or self.proposed == self.most:
            return None
        setting = self.space.setting({BETA: self.beta, TEACHERS: self.space.values[TEACHERS][0]})  # type: ignore[index]
        self.beta, self.proposed = 2 * self.beta, self.proposed + 1
        return Trial("search", setting, 0)

    def tell(self, trial: Trial, score: float | None) -> None:
        self.scores.append(score or 0.0)


class FirstEvaluation(FIFOScheduler):
    """Stops every trial at its first evaluation."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self.STOP
