"""The recipe's section `search`: the settings to try, the searcher, the scheduler, and the final runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from aft_ray.recipe.actors import MOST_PROCESSES
from aft_ray.recipe.model import Model, named_or_own

TOP_BY_RANK = re.compile(r"top_([1-9]\d*)_by_rank")


class Range(Model):
    """Numbers between `min` and `max`, drawn evenly in their logarithm, or evenly with `log: false`."""

    min: float
    """The smallest number."""
    max: float
    """The largest number."""
    log: bool = True
    """Draw evenly in the logarithm, which needs a `min` above 0."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        if self.min >= self.max:
            raise ValueError(f"must have min < max, got {self.min:g} and {self.max:g}")
        if self.log and self.min <= 0:
            raise ValueError(f"must have min > 0 with log: true, got {self.min:g}")
        return self


Values: TypeAlias = Range | tuple[Any, ...]
"""Values that a key may take: a list, or a range of numbers."""

Betas: TypeAlias = Range | tuple[Annotated[float, Field(ge=0)], ...]


FinalsOf: TypeAlias = Literal["method", "teachers", "setting"]


class FinalConfig(Model):
    of: FinalsOf = "method"
    """Settings to train again: the best of each `method`, the best of each method with each combination of `teachers`, or every
    `setting`."""
    seeds: int = Field(default=3, ge=0)
    """Final trainings of each setting that `of` names, each with its own seed; 0 leaves the test split unseen."""
    train_on: Literal["train+validation", "train"] = "train+validation"
    """`train+validation` trains on all samples except test and keeps the last step's student; `train` keeps the student with
    the best validation score."""
    teacher_heads: bool = False
    """Also test a linear head and nearest neighbours on each teacher's features, fitted to the train split, as rows of the
    table of methods. Teachers then run over the test split too. For one class per sample."""


class SearchConfig(Model):
    compare: tuple[str, ...] = ()
    """Methods to compare, each with the same budget; empty searches the recipe's regularizer alone."""
    beta: dict[str, Betas] = {}
    """Values of `regularizer.beta`: a list, a range {min, max}, or a mapping from methods to either (`all`: other methods).
    Empty takes four values of each method's own (`aft-ray list regularizers`)."""
    teachers: str | tuple[tuple[str, ...], ...] = "all_subsets"
    """Combinations of teachers: `all_subsets`, `singles`, `singles_and_pairs`, `top_K_by_rank` (the K combinations with
    the best linear heads), or a list of lists of names."""
    space: dict[str, Values] = {}
    """Other dotted keys of the recipe, such as `train.learning_rate`, each with a list of values or a range {min, max}. A key
    of `regularizer` is tried with the methods that have it."""
    per_method: dict[str, dict[str, Values]] = {}
    """Dotted keys of `regularizer` and `train` for one method, such as `kd: {regularizer.learning_rate: 1.0e-4}`, each with a
    value, a list of values or a range {min, max}; they replace the method's values of `space`."""
    searcher: str = "grid"
    """`grid` tries everything, `random` draws `num_samples` settings, `balanced` draws them so that no value is tried more often
    than another (a Latin hypercube), `optuna` (TPE) learns from the trials before, `module:Class` is a class of your own."""
    subsets_as: Literal["choice", "bits"] = "choice"
    """How `optuna` chooses teachers: one choice among combinations, or one bit for each teacher."""
    num_samples: int | None = Field(default=None, gt=0)
    """Settings to try per method; null tries the whole grid."""
    seeds: int = Field(default=1, gt=0)
    """Trials of each setting, each with its own seed; settings are compared by their mean score."""
    finalists: int | None = Field(default=None, gt=0)
    """Settings of each method that get all `seeds`, the best after one seed; the others drop out. Null gives all seeds to every
    setting."""
    metric: Literal["val_accuracy", "val_loss"] | None = None
    """Score of a trial, taken at its best evaluation; null is the accuracy, or the loss of a regression."""
    scheduler: str = "asha"
    """`asha` stops trials that fall behind others of their method; `pbt` copies the weights of better trials and changes
    values of ranges during training; `none` runs every trial to its end; `module:Class` is a class of your own."""
    grace_steps: int | None = Field(default=None, gt=0)
    """Steps before a scheduler may stop or change a trial; null is a third of train.steps."""
    reduction_factor: int = Field(default=2, gt=1)
    """`asha` keeps one trial in this many at each halt."""
    max_concurrent_trials: int | None = Field(default=None, gt=0, le=MOST_PROCESSES)
    """Trials that run at the same time; null runs as many as the cluster has room for."""
    workers_per_trial: int = Field(default=1, gt=0, le=MOST_PROCESSES)
    """DDP workers of each trial, which do not change its result; `pbt` needs one."""
    cpus_per_trial: float = Field(default=1.0, gt=0, le=MOST_PROCESSES)
    """CPUs of each worker of a trial."""
    gpus_per_trial: float | None = Field(default=None, ge=0, le=MOST_PROCESSES)
    """GPUs of each worker of a trial; fractions share one GPU; null is 1 with train.use_gpu, else 0."""
    keep_students: Literal["none", "best", "all"] = "best"
    """Students that stay when the search is over: `best` keeps the students of the chosen settings, from the search and from the
    final runs. Scores and curves of all trials stay."""
    checkpoint_every_s: float = Field(default=30.0, ge=0)
    """Seconds between checkpoints of a trial: the work that a killed process may lose."""
    final: FinalConfig = FinalConfig()
    """Final runs: the best settings are trained again, and only these runs see the test split."""

    @field_validator("searcher")
    @classmethod
    def _is_a_searcher(cls, value: str) -> str:
        return named_or_own(value, ("grid", "random", "balanced", "optuna"))

    @field_validator("scheduler")
    @classmethod
    def _is_a_scheduler(cls, value: str) -> str:
        return named_or_own(value, ("asha", "pbt", "none"))

    @field_validator("beta", mode="before")
    @classmethod
    def _beta_per_method(cls, value: Any) -> Any:
        if isinstance(value, dict) and not {"min", "max"} & set(value):
            return {key: value[key] if isinstance(value[key], dict) else _as_list(value[key]) for key in value}
        return {"all": value if isinstance(value, dict) else _as_list(value)}

    @field_validator("space", mode="before")
    @classmethod
    def _values_are_lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must map dotted keys to lists of values or ranges, got {value!r}")
        for key, values in value.items():
            if not isinstance(values, (list, tuple, dict, Range)) or not values:
                raise ValueError(f"{key} must be a list of values, or {{min, max}} for a range, got {values!r}")
        return value

    @field_validator("per_method", mode="before")
    @classmethod
    def _values_per_method(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not all(isinstance(keys, dict) for keys in value.values()):
            raise ValueError(f"must map methods to dotted keys and their values, got {value!r}")
        as_lists = {
            method: {key: values if isinstance(values, dict) else _as_list(values) for key, values in keys.items()}
            for method, keys in value.items()
        }
        for method, keys in as_lists.items():
            for key, values in keys.items():
                if not values:
                    raise ValueError(f"{method}.{key} must be a value, a list of values or a range, got {values!r}")
        return as_lists

    @field_validator("teachers", mode="before")
    @classmethod
    def _combinations(cls, value: Any) -> Any:
        lists = isinstance(value, (list, tuple)) and all(isinstance(subset, (list, tuple)) for subset in value)
        words = value in ("all_subsets", "singles", "singles_and_pairs")
        if not (lists or words or (isinstance(value, str) and TOP_BY_RANK.fullmatch(value))):
            raise ValueError(
                "must be all_subsets, singles, singles_and_pairs, top_K_by_rank (such as top_3_by_rank) or a list of"
                f" lists of teachers' names, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> SearchConfig:
        ranges = [f"beta of {method}" for method, values in self.beta.items() if isinstance(values, Range)]
        ranges += [key for key, values in self.space.items() if isinstance(values, Range)]
        ranges += [
            f"{key} of {method}"
            for method, keys in self.per_method.items()
            for key, values in keys.items()
            if isinstance(values, Range)
        ]
        faults = []
        if ranges and self.searcher == "grid":
            faults.append(
                f"a grid cannot hold the range of {', '.join(ranges)}; set searcher to random, balanced or optuna"
            )
        if self.searcher != "grid" and self.num_samples is None:
            faults.append(f"searcher '{self.searcher}' needs num_samples, the settings to try per method")
        if self.scheduler == "pbt" and not ranges:
            faults.append("scheduler 'pbt' changes numbers of ranges; give beta or a key of space as {min, max}")
        if self.scheduler == "pbt" and self.searcher == "optuna":
            faults.append("scheduler 'pbt' and searcher 'optuna' contradict each other; take searcher random")
        if self.scheduler == "pbt" and self.workers_per_trial > 1:
            faults.append("scheduler 'pbt' is for trials of one worker; with several take asha or none")
        if self.finalists and self.seeds == 1:
            faults.append("finalists get further seeds, and seeds is 1; raise seeds or leave finalists out")
        if self.finalists and self.scheduler == "pbt":
            faults.append("scheduler 'pbt' changes settings during training, so none can be a finalist")
        if self.finalists and self.final.of == "setting":
            faults.append("final.of 'setting' trains every setting again, so there are no finalists")
        if self.subsets_as == "bits" and self.searcher != "optuna":
            faults.append("subsets_as 'bits' is for searcher 'optuna'")
        if self.subsets_as == "bits" and self.teachers != "all_subsets":
            faults.append("subsets_as 'bits' tries every combination; leave teachers at all_subsets")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def first_seeds(self) -> int:
        """Seeds of every setting, finalist or not."""
        return 1 if self.finalists else self.seeds

    def methods(self, default: str) -> tuple[str, ...]:
        """The methods that are searched, each once."""
        return tuple(dict.fromkeys(self.compare or (default,)))

    def space_of(self, method: str) -> dict[str, Values]:
        """The other keys that the section searches with `method`."""
        return {**self.space, **self.per_method.get(method, {})}

    def betas(self, method: str) -> Betas:
        """The strengths that the section gives `method`, empty for none; standard transfer learning has only 0."""
        return (0.0,) if method == "none" else self.beta.get(method, self.beta.get("all", ()))


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple, Range)) else [value]
