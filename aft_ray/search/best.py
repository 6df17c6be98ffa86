"""Which setting of each method is best, and which method wins, from the trials of a search on validation alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aft_ray.recipe.search_section import FinalsOf
from aft_ray.search.trials import SettingKey, TrialRow, setting_key
from aft_ray.training.best import measure_of, score

SIMPLEST = "none"


@dataclass(frozen=True)
class Choice:
    """A setting that was searched. score, loss: means over its trials' seeds, the loss infinite where it is not known.
    standard_error: of the score."""

    key: SettingKey
    score: float
    loss: float
    standard_error: float

    @property
    def method(self) -> str:
        return self.key[0]

    @property
    def rank(self) -> tuple[float, float, bool, int, float]:
        """Orders choices, the best first: by score, then by validation loss, then the simpler. A sort leaves equals as
        they were tried."""
        _, beta, teachers, _ = self.key
        return (-self.score, self.loss, self.method != SIMPLEST, len(teachers), beta)


def best_settings(rows: Iterable[TrialRow], metric: str | None, num_validation: int | None = None) -> dict[str, Choice]:
    """The best setting of each method, by the mean score over its seeds, in the order in which methods were first tried.

    num_validation: labelled samples that the trials were measured on, for the standard error of an accuracy.
    """
    return {choice.method: choice for choice in best_of_each("method", rows, metric, num_validation)}


def best_of_each(
    of: FinalsOf, rows: Iterable[TrialRow], metric: str | None, num_validation: int | None = None, keep: int = 1
) -> list[Choice]:
    """The `keep` best settings of each method, of each method with each combination of teachers, or every setting.

    A setting with fewer trials than others of its group was no finalist: a lucky seed does not make it the best.
    """
    trials: dict[Hashable, dict[SettingKey, list[TrialRow]]] = {}
    for row in rows:
        if row["stage"] == "search":
            key = setting_key(row)
            trials.setdefault(group_of(of, key), {}).setdefault(key, []).append(row)
    best: list[Choice] = []
    for settings in trials.values():
        most = max(map(len, settings.values()))
        scored = {key: [row for row in rows if _is_scored(row)] for key, rows in settings.items() if len(rows) == most}
        choices = [_choice(key, rows, metric, num_validation) for key, rows in scored.items() if rows]
        best += sorted(choices, key=lambda choice: choice.rank)[:keep]
    return best


def _is_scored(row: TrialRow) -> bool:
    return (row.get("val_accuracy"), row.get("val_loss")) != (None, None)


def group_of(of: FinalsOf, key: SettingKey) -> Hashable:
    """The group in which a setting competes; its best setting has final runs."""
    method, _, teachers, _ = key
    return {"method": method, "teachers": (method, teachers), "setting": key}[of]


def winner(best: Mapping[str, Choice]) -> Choice:
    """The method to train: the best, or standard transfer if it is worse by at most its standard error."""
    first = min(best.values(), key=lambda choice: choice.rank)
    simplest = best.get(SIMPLEST)
    if simplest is not None and first.score - simplest.score <= simplest.standard_error:
        return simplest
    return first


def _choice(key: SettingKey, rows: Sequence[TrialRow], metric: str | None, num_validation: int | None) -> Choice:
    scores = [score(row, metric) for row in rows]
    losses = [math.inf if (loss := row.get("val_loss")) is None or math.isnan(loss) else loss for row in rows]
    mean = math.fsum(scores) / len(scores)
    error = 0.0
    if num_validation and metric != "val_loss" and measure_of(rows).name == "accuracy":
        # Seeds share the samples, so more seeds do not lower it.
        error = math.sqrt(max(0.0, mean * (1 - mean)) / num_validation)
    elif len(scores) > 1 and math.isfinite(mean):
        error = statistics.stdev(scores) / math.sqrt(len(scores))
    return Choice(key, mean, math.fsum(losses) / len(losses), error)
