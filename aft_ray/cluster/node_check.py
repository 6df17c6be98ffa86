"""What a node must have in common with the driver: the workspace, and the software that decides the numbers.

Nodes that are there when a command begins are checked then; one that comes later is checked by the actors that it gets.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

import aft_ray
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory

PACKAGES = ("ray", "torch", "timm")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "aft-ray": aft_ray.__version__, **packages}


def node_name(address: str, node_id: str) -> str:
    return f"Node {address} ({node_id[:8]})"


def not_shared(node: str, workspace: Directory, reason: str) -> str:
    return (
        f"{node} does not share the workspace {workspace}: {reason}. Take a directory that all machines mount, or an object"
        " store."
    )


def other_versions(node: str, theirs: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """A line if they differ, or none."""
    differing = [f"{key} {theirs[key]}, not {own[key]}" for key in own if theirs[key] != own[key]]
    return [f"{node} has {', '.join(differing)}. Install the same versions everywhere."] if differing else []


@dataclass(frozen=True)
class NodeCheck:
    """Made by the driver, called by an actor on its node. witness: a file in `place`, a directory of the workspace."""

    workspace: Directory
    place: Directory
    witness: str
    own: Mapping[str, str] = field(default_factory=versions)

    def __call__(self) -> None:
        """Raises InputError with a line per fault. Without the workspace, a node would write shards to its own disk."""
        node = node_name(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id())
        faults = other_versions(node, versions(), self.own)
        try:
            reason = "" if self.place.has(self.witness) else f"it has no {self.place}/{self.witness}"
        except OSError as error:
            reason = " ".join(str(error).split())
        if reason:
            faults.insert(0, not_shared(node, self.workspace, reason))
        if faults:
            raise InputError(faults)
