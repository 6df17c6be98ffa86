"""What the import of an adapter leaves behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aft_ray.models.adapters import COMPILER, disabled_later, import_adapter
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

PACKAGE = "aft_ray.models.teachers"


@pytest.mark.processes
def test_a_process_that_ends_at_once_leaves_no_temporary_files_of_timm_s_tracker(tmp_path: Path) -> None:
    """As Ray ends its workers. The tracker itself can be imported afterwards."""
    pytest.importorskip("wandb")
    script = f"""
import os
from aft_ray.models.adapters import import_adapter

import_adapter("{PACKAGE}.timm_teacher")
print(os.listdir(os.environ["TMPDIR"]), flush=True)
import wandb
os._exit(0)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "timm" not in done.stderr, done.stderr
    assert "wandb" not in done.stdout


def test_a_module_that_cannot_be_imported_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        import_adapter(f"{PACKAGE}.no_such")
    assert "wandb" not in sys.modules


@pytest.mark.processes
def test_timm_s_import_and_a_forward_pass_do_not_import_torch_s_compiler() -> None:
    """Which is half of the import. Where timm or torchvision change so that it is, this test tells."""
    script = f"""
import gc, sys
import torch
from aft_ray.models.adapters import import_adapter

disable = torch.compiler.disable
import_adapter("{PACKAGE}.timm_teacher")
import timm
timm.create_model("test_vit").eval()(torch.zeros(1, 3, 160, 160))
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "triton"))]
assert gc.isenabled() and torch.compiler.disable is disable

from torchvision.ops import roi_align
model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=32, depth=1, num_heads=2).eval()
pictures, boxes = torch.rand(1, 3, 64, 64), torch.tensor([[0, 0.0, 0.0, 8.0, 8.0]])
plain = model(pictures), roi_align(pictures, boxes, 2)
assert torch.equal(torch.compile(model, backend="eager")(pictures), plain[0])
assert torch.equal(roi_align(pictures, boxes, 2), plain[1])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("decorate", [torch.compiler.disable, disabled_later, disabled_later(recursive=False)])
def test_a_function_hidden_later_is_not_compiled(decorate: Callable[..., Any]) -> None:
    seen = []

    def told(values: torch.Tensor) -> torch.Tensor:
        seen.append(torch.compiler.is_compiling())
        return values * 2

    own = decorate(told)
    assert own(torch.ones(1)).item() == 2 and own.__name__ == "told"
    compiled = torch.compile(lambda values: own(values + 1) + 1, backend="eager")
    assert compiled(torch.ones(1)).item() == 5
    assert seen == [False, False]


def test_an_import_that_fails_leaves_garbage_collection_and_the_compiler_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    disable = torch.compiler.disable
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        import_adapter(f"{PACKAGE}.no_such")
    assert gc.isenabled() and torch.compiler.disable is disable and COMPILER not in sys.modules
