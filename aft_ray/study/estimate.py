"""What a study would run and roughly cost, before anything is downloaded or started.

Arithmetic of the models is counted, not measured; a rate turns it into hours. Real devices differ from the rate by a factor of
three either way, so the hours tell days from weeks and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from aft_ray.cluster.growth import actors_with_room
from aft_ray.cluster.waves import Wave, waves
from aft_ray.datasets import NAMED
from aft_ray.models.sizes import Size, reads_texts, size_of
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.search.estimate import num_finals, num_of_finalists
from aft_ray.search.space import plan_trials, teacher_subsets, top_by_rank
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace
from aft_ray.study.config import Study

GPU_RATE, CPU_RATE = 2e13, 2e10
"""Operations per second of a GPU, and of a CPU core."""
BACKWARD = 3
"""A training step costs about three forward passes."""

Nodes = Sequence[Mapping[str, float]]
known_size = lru_cache(maxsize=None)(size_of)


@dataclass(frozen=True)
class SettingCost:
    """The trainings of one setting. hours: of one GPU, or of one CPU core without train.use_gpu; NaN for a student of unknown
    size. student_bytes: of the students that are kept."""

    name: str
    trials: int
    finals: int
    on_gpu: bool
    hours: float
    student_bytes: float


@dataclass(frozen=True)
class DataCost:
    """The features of one workspace. samples, pictures: that teachers read, NaN where their number is unknown; pairs may share a
    picture. hours: on the cluster's
    clock; device_hours: of all GPUs and cores together. unknown: teachers without a known size."""

    place: str
    samples: float
    pictures: float
    waves: list[Wave]
    feature_bytes: float
    hours: float
    device_hours: float
    unknown: list[str]


@dataclass(frozen=True)
class StudyPlan:
    settings: list[SettingCost]
    data: list[DataCost]
    nodes: Nodes

    @cached_property
    def trainings(self) -> int:
        return sum(setting.trials + setting.finals for setting in self.settings)

    @property
    def training_hours(self) -> float:
        """On the cluster's clock: as many trainings at a time as there are GPUs, or cores."""
        total = {on: _sum(s.hours for s in self.settings if s.on_gpu is on) for on in (True, False)}
        there = {True: _count(self.nodes, "GPU"), False: _count(self.nodes, "CPU")}
        return sum(hours / max(1.0, there[on]) for on, hours in total.items())

    @property
    def extraction_hours(self) -> float:
        return _sum(data.hours for data in self.data)

    @property
    def bytes(self) -> float:
        return _sum(data.feature_bytes for data in self.data) + _sum(s.student_bytes for s in self.settings)


def plan_study(study: Study, nodes: Nodes) -> StudyPlan:
    """Counts trials and the arithmetic of every setting. Raises InputError for teachers that have no room on the nodes."""
    settings = [_setting(name, recipe) for name, recipe in study.settings.items()]
    data = [_data(study, place, names, nodes) for place, names in study.workspaces.items()]
    return StudyPlan(settings, data, nodes)


def _setting(name: str, recipe: Recipe) -> SettingCost:
    trials = plan_trials(recipe, teacher_subsets(recipe)[: top_by_rank(recipe)])
    further, finals = num_of_finalists(recipe, trials), num_finals(recipe, trials)
    steps = [dict(trial.setting.others).get("train.steps", recipe.train.steps) for trial in trials]
    total_steps = sum(steps) + (further + finals) * max(steps)
    size = _student(recipe)
    rate = GPU_RATE if recipe.train.use_gpu else CPU_RATE
    hours = BACKWARD * size.flops * recipe.train.global_batch_size * total_steps / rate / 3600 if size else math.nan
    return SettingCost(
        name,
        len(trials) + further,
        finals,
        recipe.train.use_gpu,
        hours,
        4 * size.parameters * finals if size else math.nan,
    )


def _student(recipe: Recipe) -> Size | None:
    student = recipe.student
    return known_size(student.model, image_size=student.image_size, max_length=student.max_length)


def _data(study: Study, place: str, names: Sequence[str], nodes: Nodes) -> DataCost:
    """What all settings of one workspace have extracted."""
    recipes = [study.settings[name] for name in names]
    teachers = {teacher.name: teacher for recipe in recipes for teacher in recipe.teachers}
    sizes = {
        name: known_size(
            teacher.model, image_size=teacher.image_size, max_length=teacher.max_length, tower=teacher.tower
        )
        for name, teacher in teachers.items()
    }
    samples, pictures = num_inputs(recipes[0])
    turns = waves(list(teachers.values()), nodes, recipes[0].resources.decode_cpus)
    counts = {
        teacher.name: count
        for wave in turns
        for teacher, count in zip(wave, actors_with_room(wave, nodes, recipes[0].resources.decode_cpus), strict=True)
    }
    own_cpus = max(1.0, _count(nodes, "CPU") / 2)
    seconds = {
        name: (samples if reads_texts(teachers[name].model, teachers[name].tower) else pictures)
        * size.flops
        / (GPU_RATE if teachers[name].num_gpus else CPU_RATE * own_cpus)
        / counts[name]
        for name, size in sizes.items()
        if size
    }
    widths = {
        name: size.width * (2 if teachers[name].features_dtype == "float16" else 4)
        for name, size in sizes.items()
        if size
    }
    return DataCost(
        place,
        samples,
        pictures,
        turns,
        samples * sum(widths.values()),
        sum(max((seconds.get(teacher.name, 0.0) for teacher in wave), default=0.0) for wave in turns) / 3600,
        sum(seconds[name] * max(1.0, teachers[name].num_gpus) * counts[name] for name in seconds) / 3600,
        [name for name, size in sizes.items() if size is None],
    )


def num_inputs(recipe: Recipe) -> tuple[float, float]:
    """Samples of train and validation, which teachers read, and their pictures: as prepared, or as a named data set has them;
    else NaN."""
    place = Workspace.at(recipe.workspace)
    manifests = {split: place.samples(split).manifest() for split in SPLITS}
    if not all(manifests.values()):
        return _listed(recipe.dataset)
    shards = [shard for split in recipe.extracted_splits() for shard in (manifests[split] or {})["shards"]]
    num_samples = [shard["num_samples"] for shard in shards]
    num_pictures = [shard.get("num_pictures", shard["num_samples"]) for shard in shards]
    return float(sum(num_samples)), float(sum(num_pictures))


def _listed(dataset: DatasetConfig) -> tuple[float, float]:
    if dataset.name not in NAMED:
        return math.nan, math.nan
    named = NAMED[dataset.name]
    sizes = named.num_samples
    train = sizes[0] if len(sizes) > 1 else sizes[0] * (1 - dataset.test_fraction)
    limit = (dataset.max_samples or math.inf) * train / sum(sizes)
    samples = float(round(min(train, limit) * dataset.train_fraction))
    if named.num_pictures is None:
        return samples, samples
    of_all = named.num_pictures[0]
    with_a_sample = of_all * (1 - (1 - samples / train) ** (train / of_all))
    return samples, float(round(with_a_sample))


def _count(nodes: Nodes, kind: str) -> float:
    return sum(node.get(kind, 0.0) for node in nodes)


def _sum(values: Iterable[float]) -> float:
    """The sum of the known values."""
    return math.fsum(value for value in values if not math.isnan(value))
