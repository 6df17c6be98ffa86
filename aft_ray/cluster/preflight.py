"""Checks a cluster before work starts: enough resources, a workspace that all nodes share, the same software on each."""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aft_ray.cluster.gang import Bundle, named, nodes_resources, total
from aft_ray.cluster.node_check import node_name, not_shared, other_versions, versions
from aft_ray.cluster.waves import waves
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, in_a_line
from aft_ray.store.files import STALE_AFTER_S
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.workspace import Workspace

LOOKED_AT = re.compile(r"\.preflight-[0-9a-f]{8}")


def preflight(recipe: Recipe, verb: str) -> None:
    """Raises InputError with one line per fault: the cluster lacks resources for `verb` even after `resources.wait_s`, or a
    node does not see the workspace, or its versions differ from the driver's.
    """
    call_nodes(wanted(recipe, verb), recipe.resources.wait_s, least(recipe, verb))
    if faults := node_faults(Workspace.at(recipe.workspace)):
        raise InputError(faults)


def wanted(recipe: Recipe, verb: str) -> list[Bundle]:
    """The resources that `verb` needs at the same time, CPUs for reading samples included."""
    teachers = [{"CPU": 1.0, "GPU": t.num_gpus} for t in recipe.teachers if t.num_gpus for _ in range(t.min_actors)]
    worker = recipe.worker_resources()
    workers = [worker] * (recipe.resources.min_workers or recipe.train.num_workers)
    bundles = {
        "prepare": [],
        "plan": teachers,
        "extract": teachers,
        "train": workers,
        "search": [worker],
        "predict": workers,
    }
    if verb == "pipeline":
        return max((wanted(recipe, stage) for stage in ("extract", "train")), key=lambda b: (total(b)["GPU"], len(b)))
    return [*bundles[verb], *[{"CPU": 1.0}] * (recipe.resources.decode_cpus or 1)]


def least(recipe: Recipe, verb: str) -> list[Bundle]:
    """The least that has to be there for `verb`: teachers can take turns, so it is enough for the largest of them."""
    if verb not in ("plan", "extract", "pipeline"):
        return wanted(recipe, verb)
    alone = (recipe.model_copy(update={"teachers": (teacher,)}) for teacher in recipe.teachers)
    return max((wanted(one, verb) for one in alone), key=lambda b: total(b)["GPU"], default=wanted(recipe, verb))


def check_room(recipes: Sequence[Recipe], verb: str) -> None:
    """Raises InputError, before `verb` reads a sample, with a line for everything that the cluster can never have room for."""
    nodes = nodes_resources()
    faults = dict.fromkeys(fault for recipe in recipes for fault in _room_faults(recipe, verb, nodes))
    if faults:
        raise InputError([*faults])


def _room_faults(recipe: Recipe, verb: str, nodes: Sequence[dict[str, float]]) -> list[str]:
    faults: list[str] = []
    if verb in ("plan", "extract", "pipeline"):
        splits, place = recipe.extracted_splits(), Workspace.at(recipe.workspace)
        lacking = [
            t for t in recipe.teachers if not all(place.features(t.name, split).has(MANIFEST) for split in splits)
        ]
        try:
            waves(lacking, nodes, recipe.resources.decode_cpus)
        except InputError as error:
            faults += error.faults
    if verb == "pipeline" and recipe.train.use_gpu and not any(node.get("GPU", 0) >= 1 for node in nodes):
        faults.append("train.use_gpu is true, and no node of the cluster has a GPU. Set train.use_gpu=false.")
    return faults


def call_nodes(bundles: Sequence[Bundle], wait_s: float, enough: Sequence[Bundle]) -> None:
    """Waits until the cluster has the resources of `bundles`, busy or free. Raises InputError if it lacks `enough` of them
    after `wait_s`."""
    asked = total(bundles)
    if wait_s and not _has(asked):
        print(f"nodes: waiting for {named(asked)}, the cluster has {named(ray.cluster_resources())}", file=sys.stderr)
        group = placement_group(list(bundles))  # a request to the autoscaler, which ends with this process
        try:
            until = time.monotonic() + wait_s
            while not _has(asked) and time.monotonic() < until:
                group.wait(min(1.0, wait_s))
        finally:
            remove_placement_group(group)
    asked = total(enough)
    if not _has(asked):
        there = ray.cluster_resources()
        lacking = [kind for kind, count in asked.items() if there.get(kind, 0) < count]
        raise InputError(
            [
                f"{asked[kind]:g} {kind}s are asked for, the cluster has {there.get(kind, 0):g} after {wait_s:g} s. Lower"
                f" the number of {'GPUs or actors' if kind == 'GPU' else 'workers'}, or wait for an autoscaler with"
                " resources.wait_s."
                for kind in lacking
            ]
        )


def _has(asked: Counter[str]) -> bool:
    there = ray.cluster_resources()
    return all(there.get(kind, 0) >= count for kind, count in asked.items())


def node_faults(workspace: Workspace) -> list[str]:
    """One line for each node that does not share the driver's workspace or runs other versions."""
    _delete_left_overs(workspace)
    place = workspace / f".preflight-{uuid.uuid4().hex[:8]}"
    place.write("driver", b"")
    own, faults = versions(), []
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = [
            _look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                place, node["NodeID"]
            )
            for node in nodes
        ]
        for node, answer in zip(nodes, asked, strict=True):
            name = node_name(node["NodeManagerAddress"], node["NodeID"])
            try:
                found = ray.get(answer)
            except ray.exceptions.RayError as error:
                faults.append(f"{name}: {in_a_line(error, last=True)}")
                continue
            if not found["sees_driver"] or not place.has(node["NodeID"]):
                faults.append(not_shared(name, workspace, found["reason"] or "it sees another directory"))
            faults += other_versions(name, found["versions"], own)
    finally:
        place.delete()
    return faults


def check_sees(places: Sequence[str]) -> None:
    """Raises InputError, one line for each node that does not see one of the driver's `places` of raw data."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        _lacking.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(places)
        for node in nodes
    ]
    faults = [
        f"Node {node['NodeManagerAddress']} does not see the raw data {', '.join(lacking)}. Take a directory that all machines"
        " mount, or an object store; or set dataset.distributed=never."
        for node, lacking in zip(nodes, ray.get(asked), strict=True)
        if lacking
    ]
    if faults:
        raise InputError(faults)


@ray.remote(num_cpus=0)
def _lacking(places: Sequence[str]) -> list[str]:
    return [place for place in places if not os.path.exists(place)]


def _delete_left_overs(workspace: Workspace) -> None:
    """Deletes the directories, of empty files only, that killed commands left here at least an hour ago."""
    for info in workspace.infos():
        if LOOKED_AT.fullmatch(info.base_name) and workspace.is_local:
            place = workspace / info.base_name
            is_old = time.time() - (info.mtime_ns or 0) / 1e9 > STALE_AFTER_S
            if is_old and not any(place.sizes().values()):
                place.delete()


@ray.remote(num_cpus=0)
def _look(place: Any, node: str) -> dict[str, Any]:
    found: dict[str, Any] = {"versions": versions(), "sees_driver": False, "reason": ""}
    try:
        found["sees_driver"] = place.has("driver")
        if found["sees_driver"]:
            place.write(node, b"")
    except OSError as error:
        found["reason"] = " ".join(str(error).split())
    return found
