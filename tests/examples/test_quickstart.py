"""The quickstart as a script and as a notebook: the same cells, and they run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
CELL = re.compile(r"^# %% ([^\n]*)\n(.*?)(?=^# %%|\Z)", re.DOTALL | re.MULTILINE)


def cells(script: str) -> list[tuple[str, str]]:
    """Title and code of every cell. A notebook shows its cells' last values itself, so a last `print` is left out there."""
    found = []
    for title, code in CELL.findall(script):
        *lines, last = code.replace("  # noqa: E402", "").strip().splitlines()
        last = re.sub(r"^print\((.*)\)$", r"\1", last)
        found.append((title, "\n".join([*lines, last])))
    return found


def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    return content


def test_the_notebook_has_the_script_s_cells_and_no_results_of_another_day() -> None:
    own = [cell for cell in notebook()["cells"][1:]]
    text = ["".join(cell["source"]) for cell in own]
    assert list(zip(text[::2], text[1::2], strict=True)) == cells((EXAMPLES / "quickstart.py").read_text("utf-8"))
    assert not any(cell["outputs"] or cell["execution_count"] for cell in own[1::2])


@pytest.mark.ray
def test_the_notebook_runs_and_shows_its_results_as_tables(tmp_path: Path) -> None:
    book = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert len(tables) == 7 and "standard transfer" in tables[4] and "AFT with probes" in tables[4]
