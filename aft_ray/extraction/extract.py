"""extract: samples -> features of every teacher, shard by shard, through one Ray Data pipeline.

    missing shards -> read and crop (actors on CPUs) -> teacher A (actors) -> teacher B (actors) -> ...

One row of the pipeline is one shard. The CPU stage decodes each image once and makes every teacher's crop. Each teacher
removes its crops from the row, so that rows get lighter along the way, and writes its features shard at once. All pools
work at the same time, on different shards. Teachers that have no room together take turns, in waves.
Finished shards survive any crash; a restart computes the rest.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import aft_ray
from aft_ray.cluster.attempts import Attempts, Watch
from aft_ray.cluster.crew import Stage
from aft_ray.cluster.gang import nodes_resources
from aft_ray.cluster.gauges import show_gauges
from aft_ray.cluster.lease import lease
from aft_ray.cluster.node_check import NodeCheck
from aft_ray.cluster.pipelines import attempts_elsewhere, run_pipeline
from aft_ray.cluster.progress import Progress
from aft_ray.cluster.ranges import Range, range_lease, whole_lease
from aft_ray.cluster.starting import Cluster
from aft_ray.cluster.waves import in_words, waves
from aft_ray.extraction.features import RESULT, EmbedShard
from aft_ray.extraction.log import Tally
from aft_ray.extraction.plan import Plan, plan_extraction
from aft_ray.extraction.reading import MissingShard, ReadShard
from aft_ray.recipe.config import Recipe
from aft_ray.store.kept_entries import check_note, delete_kept_entries, keep_entries, kept_entries
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.own_files import delete_own_files
from aft_ray.store.quarantine import check_quarantined
from aft_ray.store.workspace import Workspace

ROUND = 10_000
"""Most shards per pipeline: its process keeps some KiB of Ray's notes on each until it ends."""

Entries = dict[tuple[str, str], dict[int, dict[str, Any]]]
"""(directory, split) -> shard -> its entry in the manifest. A directory holds the features of one view of a teacher."""


def extract(recipe: Recipe, *, overwrite: bool = False, cluster: Cluster = nullcontext) -> dict[str, int]:
    """Computes every missing features shard of the recipe's teachers. Returns the number of new shards per teacher.

    Waits for another extraction that is at work in the workspace. overwrite: compute all shards again. cluster: is called if
    a shard is missing; by default Ray runs already.
    Raises InputError if samples are missing, more than `dataset.max_bad_samples` cannot be read, a teacher cannot be
    loaded, or shards on disk are damaged or were made with other settings.
    """
    workspace = Workspace.at(recipe.workspace)
    with whole_lease(workspace, "features"):
        if overwrite:
            delete_features(workspace, recipe.with_views(recipe.teacher_names()))
        plan = plan_extraction(recipe)
        write_manifests(recipe, plan, _run(recipe, plan, cluster))
    return plan.new_shards()


def extract_range(recipe: Recipe, only: Range, *, cluster: Cluster = nullcontext) -> dict[str, int]:
    """`extract` for one range of the shards, while other processes work on the others. Whoever makes the last shard of a
    directory writes its manifest, with the lease that `extract` has for all its work.

    Raises InputError as `extract`, and if ranges of another number are at work in the workspace.
    """
    workspace = Workspace.at(recipe.workspace)
    with range_lease(workspace, "features", only):
        plan = plan_extraction(recipe, only)
        for view, splits in plan.fingerprints.items():
            for split in splits:
                check_note(workspace.features(view, split), only.number, only.of)
        entries = _run(recipe, plan, cluster)
        for (view, split), made in entries.items():
            keep_entries(workspace.features(view, split), only.number, only.of, plan.fingerprints[view][split], made)
        # Looked up without the lease, for which hundreds of ranges would wait: whoever looks last sees every shard.
        if any(
            place in entries or not workspace.features(*place).has(MANIFEST) for place in plan.complete_directories()
        ):
            with lease(workspace, "features", sweeps=False):
                write_manifests(recipe, plan, entries)
    return plan.new_shards()


def delete_features(workspace: Workspace, teachers: Sequence[str]) -> None:
    """Deletes the features of these teachers and no other file beside them."""
    for name in teachers:
        for split in (workspace / "features" / name).folders():
            delete_own_files(workspace.features(name, split))


def write_manifests(recipe: Recipe, plan: Plan, entries: Entries) -> None:
    """Writes the manifest of each features directory that has all its shards. entries: the shards just written.

    Raises InputError, before it writes any, if more samples are quarantined than the recipe allows, by this run, earlier ones
    and other ranges together.
    """
    found: Entries = {}
    quarantined: dict[str, dict[str, str]] = {}
    for view, split in plan.complete_directories():
        directory, made = plan.workspace.features(view, split), entries.get((view, split), {})
        manifest = directory.manifest()
        if manifest and all(manifest["shards"][shard]["sha256"] == entry["sha256"] for shard, entry in made.items()):
            lists = [manifest["quarantined"]]
        else:
            num_shards, fingerprint = len(plan.num_samples[split]), plan.fingerprints[view][split]
            known = {**kept_entries(directory, fingerprint), **made}
            if plan.only:  # the others were not looked at yet; the command of another range may have had other settings
                directory.missing_shards([index for index in range(num_shards) if index not in known], fingerprint)
            found[view, split] = directory.entries(num_shards, known)
            lists = [entry.get("quarantined", []) for entry in found[view, split].values()]
        quarantined.update({sample["sample_id"]: sample for samples in lists for sample in samples})
    check_quarantined(list(quarantined.values()), recipe.dataset.max_bad_samples)
    teachers = plan.of_view()
    for (view, split), shards in found.items():
        directory = plan.workspace.features(view, split)
        width = directory.read_features(0)[1].shape[1]
        facts = {"feature_dim": width, "made_with": {**_versions(), "batch_size": teachers[view].batch_size}}
        directory.write_manifest(len(shards), plan.fingerprints[view][split], entries=shards, **facts)
    for view, split in plan.complete_directories():
        delete_kept_entries(plan.workspace.features(view, split))


def _run(recipe: Recipe, plan: Plan, cluster: Cluster) -> Entries:
    """Runs what is missing, if anything is, on a cluster. Returns the written shards."""
    if not plan.missing:
        return {}
    with cluster():
        return _run_pipelines(recipe, plan)


def _run_pipelines(recipe: Recipe, plan: Plan) -> Entries:
    """Runs a pipeline for each wave of teachers to its end and shows progress. Returns the written shards.

    Raises InputError if too many samples are quarantined.
    """
    turns = waves(plan.lacking(), nodes_resources(), recipe.resources.decode_cpus)
    if len(turns) > 1:
        print(f"extract: the cluster has no room for all teachers at once; {in_words(turns)}", file=sys.stderr)
    shards = plan.new_shards()
    tally = Tally(plan.workspace, plan.of_view(), shards, plan.only)
    entries: Entries = {}
    quarantined: dict[str, dict[str, str]] = {}
    left: dict[tuple[str, int], MissingShard] = {}

    def take(row: dict[str, Any]) -> None:
        names = row["teachers"]
        for name in names:
            result = row[RESULT + name]
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
                    run_pipeline(_stages(recipe, part, attempts), part.teachers, recipe.resources, left.values(), take)
    tally.log("end")
    return entries


def _stages(recipe: Recipe, plan: Plan, attempts: Attempts) -> list[Stage]:
    watched = partial(Watch, attempts, max_bad_samples=recipe.dataset.max_bad_samples)
    samples = plan.workspace.samples(plan.missing[0].split)
    check = NodeCheck(plan.workspace, samples, MANIFEST)
    stages = [Stage(ReadShard, (plan.workspace, plan.descriptions, watched(work="decoding")), check=check)]
    for teacher in plan.teachers:
        watch = watched(work=f"teacher '{teacher.name}'")
        fingerprints = {view: plan.fingerprints[view] for view in plan.views[teacher.name]}
        calls = 2 if teacher.num_gpus else 1
        stages.append(Stage(EmbedShard, (teacher, plan.workspace, fingerprints, watch), calls, check))
    return stages


def _versions() -> dict[str, str]:
    """Versions that may change the last digits of features; recorded, not compared."""
    packages = ("torch", "timm", "transformers", "open_clip_torch")
    return {"aft-ray": aft_ray.__version__, **{package: importlib.metadata.version(package) for package in packages}}
