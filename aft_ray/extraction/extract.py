"""extract: samples -> features of every teacher, shard by shard, through one Ray Data pipeline.

    missing shards -> read and crop (actors on CPUs) -> teacher A (actors) -> teacher B (actors) -> ...

One row of the pipeline is one shard. The CPU stage decodes each image once and makes every teacher's crop. Each teacher
removes its crops from the row, so that rows get lighter along the way, and writes its features shard at once. All pools
work at the same time, on different shards. Teachers that have no room together take turns, in waves.
Finished shards survive any crash; a restart computes the rest.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import aft_ray
from aft_ray.cluster.attempts import Attempts, Watch
from aft_ray.cluster.gang import Gang, nodes_resources
from aft_ray.cluster.gauges import show_gauges
from aft_ray.cluster.lease import lease
from aft_ray.cluster.pipelines import attempts_elsewhere, run_pipeline
from aft_ray.cluster.progress import Progress
from aft_ray.cluster.waves import Wave, in_words, waves
from aft_ray.extraction.features import RESULT, EmbedShard
from aft_ray.extraction.log import Tally
from aft_ray.extraction.reading import MissingShard, ReadShard
from aft_ray.models.teachers import TeacherDescription, describe_views
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.own_files import delete_own_files
from aft_ray.store.quarantine import check_quarantined
from aft_ray.store.sample_recipe import check_sample_recipe
from aft_ray.store.shards import samples_fingerprint, shard_identity
from aft_ray.store.side_by_side import check_not_empty
from aft_ray.store.workspace import Workspace

if TYPE_CHECKING:
    from ray.data import Dataset

ROUND = 10_000
"""Most shards per pipeline: its process keeps some KiB of Ray's notes on each until it ends."""

Entries = dict[tuple[str, str], dict[int, dict[str, Any]]]
"""(directory, split) -> shard -> its entry in the manifest. A directory holds the features of one view of a teacher."""


@dataclass(frozen=True)
class Plan:
    """The features to compute.

    teachers: the recipe's, for these samples. views: the directories of each one's features. num_samples, num_pictures: of
    each samples shard, by split; pairs may share a picture. fingerprints: of the features, by directory and split.
    missing: the samples shards that some directory lacks.
    """

    workspace: Workspace
    teachers: Sequence[TeacherConfig]
    views: Mapping[str, Sequence[str]]
    descriptions: Mapping[str, TeacherDescription]
    num_samples: Mapping[str, Sequence[int]]
    num_pictures: Mapping[str, Sequence[int]]
    fingerprints: Mapping[str, dict[str, dict[str, Any]]]
    missing: Sequence[MissingShard]

    def missing_shards(self, teacher: str) -> int:
        return sum(teacher in shard.teachers for shard in self.missing)

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


def extract(recipe: Recipe, *, overwrite: bool = False) -> dict[str, int]:
    """Computes every missing features shard of the recipe's teachers. Returns the number of new shards per teacher.

    Waits for another extraction that is at work in the workspace. overwrite: compute all shards again.
    Raises InputError if samples are missing, more than `dataset.max_bad_samples` cannot be read, a teacher cannot be
    loaded, or shards on disk are damaged or were made with other settings.
    """
    workspace = Workspace.at(recipe.workspace)
    with lease(workspace, "features"):
        if overwrite:
            delete_features(workspace, recipe.with_views(recipe.teacher_names()))
        return _extract(recipe, plan_extraction(recipe))


def delete_features(workspace: Workspace, teachers: Sequence[str]) -> None:
    """Deletes the features of these teachers and no other file beside them."""
    for name in teachers:
        for split in (workspace / "features" / name).folders():
            delete_own_files(workspace.features(name, split))


def _extract(recipe: Recipe, plan: Plan) -> dict[str, int]:
    entries = _run(recipe, plan) if plan.missing else {}
    write_manifests(recipe, plan, entries)
    return {name: plan.missing_shards(name) for name in plan.descriptions}


def write_manifests(recipe: Recipe, plan: Plan, entries: Entries) -> None:
    """Writes the manifest of each complete features directory. entries: the shards just written.

    Raises InputError if more samples are quarantined than the recipe allows, by this run and earlier ones together.
    """
    quarantined: dict[str, dict[str, str]] = {}
    for view, teacher in plan.of_view().items():
        for split, num_samples in plan.num_samples.items():
            directory = plan.workspace.features(view, split)
            made = entries.get((view, split), {})
            manifest = None if made else directory.manifest()
            if manifest is None:
                width = directory.read_features(0)[1].shape[1]
                facts = {"feature_dim": width, "made_with": {**_versions(), "batch_size": teacher.batch_size}}
                fingerprint = plan.fingerprints[view][split]
                manifest = directory.write_manifest(len(num_samples), fingerprint, entries=made, **facts)
            quarantined.update({sample["sample_id"]: sample for sample in manifest["quarantined"]})
    check_quarantined(list(quarantined.values()), recipe.dataset.max_bad_samples)


def plan_extraction(recipe: Recipe) -> Plan:
    """Finds the missing features. Raises InputError, one line per fault, if they cannot be computed."""
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
    missing = _missing_shards(workspace, fingerprints, samples)
    shards = {split: manifest["shards"] for split, manifest in samples.items()}
    num_samples = {split: [shard["num_samples"] for shard in own] for split, own in shards.items()}
    num_pictures = {
        split: [shard.get("num_pictures", shard["num_samples"]) for shard in own] for split, own in shards.items()
    }
    views = {teacher.name: recipe.with_views([teacher.name]) for teacher in teachers}
    return Plan(workspace, teachers, views, descriptions, num_samples, num_pictures, fingerprints, missing)


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
) -> list[MissingShard]:
    lacking: dict[tuple[str, int], list[str]] = {}
    faults: list[str] = []
    for teacher, by_split in fingerprints.items():
        for split, fingerprint in by_split.items():
            try:
                directory, num_shards = workspace.features(teacher, split), len(samples[split]["shards"])
                for shard in directory.missing_shards(num_shards, fingerprint):
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


def _run(recipe: Recipe, plan: Plan) -> Entries:
    """Runs a pipeline for each wave of teachers to its end and shows progress. Returns the written shards.

    Raises InputError if too many samples are quarantined.
    """
    turns = waves(plan.lacking(), nodes_resources(), recipe.resources.decode_cpus)
    if len(turns) > 1:
        print(f"extract: the cluster has no room for all teachers at once; {in_words(turns)}", file=sys.stderr)
    shards = {name: plan.missing_shards(name) for name in plan.descriptions}
    tally = Tally(plan.workspace, plan.of_view(), shards)
    entries: Entries = {}
    quarantined: dict[str, dict[str, str]] = {}
    left: dict[tuple[str, int], MissingShard] = {}

    def take(row: dict[str, Any]) -> None:
        names = json.loads(row["teachers"])
        for name in names:
            result = json.loads(row[RESULT + name])
            tally.add(name, result)
            show_gauges("extract", name, tally.facts(name))
            if result:
                entry = {
                    sys.intern(key): value for key, value in result["entry"].items()
                }  # millions of entries share these keys
                entries.setdefault((name, row["split"]), {})[row["shard"]] = entry
                quarantined.update({sample["sample_id"]: sample for sample in entry["quarantined"]})
        check_quarantined(list(quarantined.values()), recipe.dataset.max_bad_samples)
        del left[row["split"], row["shard"]]
        progress.advance(len(names), tally.note)

    with Progress("extract", sum(shards.values()), "shards") as progress:
        for part in map(plan.of, turns):
            with attempts_elsewhere() as attempts, progress.following(attempts.parts):
                for start in range(0, len(part.missing), ROUND):
                    left.update({(shard.split, shard.shard): shard for shard in part.missing[start : start + ROUND]})
                    run_pipeline(
                        part.teachers,
                        recipe.resources,
                        left.values(),
                        partial(_pipeline, recipe, replace(part, missing=()), attempts),
                        take,
                    )
    tally.log("end")
    return entries


def _pipeline(recipe: Recipe, plan: Plan, attempts: Attempts, missing: list[MissingShard], gang: Gang) -> Dataset:
    import ray.data

    watched = partial(Watch, attempts, max_bad_samples=recipe.dataset.max_bad_samples)
    items = [{"missing": json.dumps(shard)} for shard in missing]
    pipeline = ray.data.from_items(items, override_num_blocks=len(items)).map(
        ReadShard,
        fn_constructor_args=(plan.workspace, plan.descriptions, watched(work="decoding")),
        **gang.stage(0, len(items)),
    )
    for number, teacher in enumerate(plan.teachers, 1):
        watch = watched(work=f"teacher '{teacher.name}'")
        fingerprints = {view: plan.fingerprints[view] for view in plan.views[teacher.name]}
        pipeline = pipeline.map(
            EmbedShard,
            fn_constructor_args=(teacher, plan.workspace, fingerprints, watch),
            **gang.stage(number, len(items), calls=2 if teacher.num_gpus else 1),
        )
    return pipeline


def _versions() -> dict[str, str]:
    """Versions that may change the last digits of features; recorded, not compared."""
    packages = ("torch", "timm", "transformers", "open_clip_torch")
    return {"aft-ray": aft_ray.__version__, **{package: importlib.metadata.version(package) for package in packages}}
