"""`aft-ray prepare` with buckets for a hundred samples, and its tasks in its own process; as a command, one that is killed:

    python -m tests.helpers.small_buckets EVENT PATTERN NUMBER RECIPE [KEY=VALUE ...]

The process ends by SIGKILL right before the first (second, ...) file whose name is like PATTERN is written or deleted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any

from aft_ray import cli
from aft_ray.cluster.tasks import Helpers
from aft_ray.commands import prepare
from aft_ray.datasets import buckets
from aft_ray.datasets.buckets import files, mapping, strata
from aft_ray.datasets.sources import picture_parts, store_folders, tabular
from aft_ray.store.files import Directory
from tests.helpers.tasks import elsewhere

SMALL: tuple[tuple[Any, str, int], ...] = (
    (buckets, "BUCKET_ROWS", 17),
    (files, "ROWS_OF_BATCH", 4),
    (mapping, "TASKS", 2),
    (strata, "CELLS", 10),
    (tabular, "PART_ROWS", 10),
    (picture_parts, "PART_FILES", 5),
    (picture_parts, "PIECE_FILES", 9),
    (store_folders, "ENOUGH", 4),
    (store_folders, "FOLDERS_OF_TASK", 2),
    (store_folders, "FILE_ROWS", 15),
)
"""Several buckets, batches, tars of a task, parts of a table and groups of folders, for 120 samples."""


@contextmanager
def helpers_here(*_: Any) -> Iterator[Helpers]:
    """Instead of `commands.prepare.helpers_of`, which starts Ray."""
    yield Helpers(elsewhere)


def killed_before(event: str, pattern: str, number: int) -> None:
    left, one_at_a_time = [number], Lock()

    def meet(name: str) -> None:
        left[0] -= fnmatch(name, pattern)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if event == "write":
        replace: Callable[..., None] = os.replace

        def replacing(source: Any, target: Any) -> None:
            with one_at_a_time:
                meet(Path(target).name)
                replace(source, target)

        os.replace = replacing  # type: ignore[assignment]
    else:
        delete = Directory.delete_file

        def deleting(place: Directory, name: str) -> None:
            meet(name)
            delete(place, name)

        Directory.delete_file = deleting  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    for module, name, value in SMALL:
        setattr(module, name, value)
    prepare.helpers_of = helpers_here  # type: ignore[assignment]
    killed_before(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.exit(cli.main(["prepare", *sys.argv[4:]]))
