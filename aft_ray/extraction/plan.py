"""The plan of an extraction: the missing shards of features, and the settings that they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aft_ray.cluster.ranges import Range
from aft_ray.cluster.waves import Wave
from aft_ray.extraction.reading import MissingShard
from aft_ray.models.teachers import TeacherDescription, describe_views
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.sample_recipe import check_sample_recipe
from aft_ray.store.shards import samples_fingerprint, shard_identity
from aft_ray.store.side_by_side import check_not_empty
from aft_ray.store.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The features to compute.

    teachers: the recipe's, for these samples. views: the directories of each one's features. num_samples, num_pictures: of
    each samples shard, by split; pairs may share a picture. fingerprints: of the features, by directory and split.
    missing: the samples shards that some directory lacks. only: the range of them to compute; None for all.
    """

    workspace: Workspace
    teachers: Sequence[TeacherConfig]
    views: Mapping[str, Sequence[str]]
    descriptions: Mapping[str, TeacherDescription]
    num_samples: Mapping[str, Sequence[int]]
    num_pictures: Mapping[str, Sequence[int]]
    fingerprints: Mapping[str, dict[str, dict[str, Any]]]
    missing: Sequence[MissingShard]
    only: Range | None = None

    def new_shards(self) -> dict[str, int]:
        """How many shards each directory lacks."""
        lacking = Counter(name for shard in self.missing for name in shard.teachers)
        return {name: lacking[name] for name in self.descriptions}

    def complete_directories(self) -> list[tuple[str, str]]:
        """The directories, by name and split, that have all their shards once the plan's are made."""
        places = [(view, split) for view in self.descriptions for split in self.num_samples]
        return [place for place in places if self.only is None or self._has_all(*place)]

    def _has_all(self, view: str, split: str) -> bool:
        directory = self.workspace.features(view, split)
        names = directory.sizes()
        return all(directory.shard_name(shard) in names for shard in range(len(self.num_samples[split])))

    def num_inputs(self, view: str, split: str, shard: int) -> int:
        """How many inputs a teacher computes for a shard: one a picture, where the picture alone decides."""
        counts = self.num_pictures if self.descriptions[view].is_of_picture else self.num_samples
        return counts[split][shard]

    def of_view(self) -> dict[str, TeacherConfig]:
        """The teacher of each directory."""
        return {view: teacher for teacher in self.teachers for view in self.views[teacher.name]}

    def lacking(self) -> list[TeacherConfig]:
        """The teachers that have work to do."""
        names = {name for shard in self.missing for name in shard.teachers}
        return [teacher for teacher in self.teachers if names & set(self.views[teacher.name])]

    def of(self, wave: Wave) -> Plan:
        """The part of these teachers."""
        names = [view for teacher in wave for view in self.views[teacher.name]]
        descriptions = {name: self.descriptions[name] for name in names}
        missing = [shard._replace(teachers=tuple(n for n in shard.teachers if n in names)) for shard in self.missing]
        return replace(self, teachers=wave, descriptions=descriptions, missing=[s for s in missing if s.teachers])


def plan_extraction(recipe: Recipe, only: Range | None = None) -> Plan:
    """Finds the missing features, of one range of the shards or of all.

    Raises InputError, one line per fault, if they cannot be computed.
    """
    if not recipe.teachers:
        raise InputError("The recipe names no teachers: there is nothing to extract.")
    workspace = Workspace.at(recipe.workspace)
    found = {split: workspace.samples(split).manifest() for split in recipe.extracted_splits()}
    samples = {split: manifest for split, manifest in found.items() if manifest}
    if len(samples) < len(found):
        raise InputError(f"No samples in {workspace}. Run 'aft-ray prepare' first.")
    check_sample_recipe(recipe.dataset, samples["train"], workspace)
    for split, manifest in samples.items():
        check_not_empty(manifest["num_samples"], workspace.samples(split), [manifest])
    teachers = [teacher.reading(samples["train"]) for teacher in recipe.teachers]
    descriptions = describe_views(teachers, samples["train"], recipe.train.views, flip=recipe.train.flip)
    _check_modality(samples["train"]["modality"], descriptions)
    fingerprints = {
        teacher: {
            split: {**description.fingerprint, "samples": samples_fingerprint(manifest)}
            for split, manifest in samples.items()
        }
        for teacher, description in descriptions.items()
    }
    missing = _missing_shards(workspace, fingerprints, samples, only)
    shards = {split: manifest["shards"] for split, manifest in samples.items()}
    num_samples = {split: [shard["num_samples"] for shard in own] for split, own in shards.items()}
    num_pictures = {
        split: [shard.get("num_pictures", shard["num_samples"]) for shard in own] for split, own in shards.items()
    }
    views = {teacher.name: recipe.with_views([teacher.name]) for teacher in teachers}
    return Plan(workspace, teachers, views, descriptions, num_samples, num_pictures, fingerprints, missing, only)


def _check_modality(modality: str, descriptions: Mapping[str, TeacherDescription]) -> None:
    faults = [
        f"Teacher '{name}' takes {description.modality}s, the data set has {modality}s."
        for name, description in descriptions.items()
        if description.modality not in modality
    ]
    if faults:
        raise InputError(faults)


def _missing_shards(
    workspace: Workspace,
    fingerprints: Mapping[str, Mapping[str, dict[str, Any]]],
    samples: Mapping[str, dict[str, Any]],
    only: Range | None,
) -> list[MissingShard]:
    lacking: dict[tuple[str, int], list[str]] = {}
    faults: list[str] = []
    for teacher, by_split in fingerprints.items():
        for split, fingerprint in by_split.items():
            try:
                directory, num_shards = workspace.features(teacher, split), len(samples[split]["shards"])
                indices = only.indices(num_shards) if only else range(num_shards)
                for shard in directory.missing_shards(indices, fingerprint):
                    lacking.setdefault((split, shard), []).append(teacher)
            except InputError as error:
                faults += error.faults
    for split, shard in lacking:
        try:
            workspace.samples(split).check_size(shard, samples[split])
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return [
        MissingShard(split, shard, shard_identity(samples[split], shard), tuple(names))
        for (split, shard), names in lacking.items()
    ]
