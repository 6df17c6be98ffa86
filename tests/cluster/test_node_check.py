"""A node that came after the command began."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from aft_ray.cluster import node_check
from aft_ray.cluster.node_check import NodeCheck, versions
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace


@pytest.fixture
def a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    here = SimpleNamespace(get_node_id=lambda: "0123456789abcdef")
    monkeypatch.setattr(node_check.ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(node_check.ray.util, "get_node_ip_address", lambda: "10.0.0.7")


def test_a_node_without_the_workspace_or_with_other_versions_is_refused(a_node: None, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    samples = workspace / "samples"
    samples.write("manifest.json", b"{}")
    NodeCheck(workspace, samples, "manifest.json")()
    samples.delete_file("manifest.json")
    with pytest.raises(InputError) as refused:
        NodeCheck(workspace, samples, "manifest.json", versions() | {"timm": "0.1"})()
    unshared, other = refused.value.faults
    assert unshared.startswith(
        f"Node 10.0.0.7 (01234567) does not share the workspace {tmp_path}: it has no {samples}/"
    )
    assert (
        other
        == f"Node 10.0.0.7 (01234567) has timm {versions()['timm']}, not 0.1. Install the same versions everywhere."
    )
