"""What the import of an adapter leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aft_ray.models.adapters import import_adapter
from tests.helpers import ROOT

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
