"""The environment of a command: Ray's settings, a cluster, the recipe."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from aft_ray.cluster.address import address, check_answers, names_cluster
from aft_ray.cluster.place import cluster_place
from aft_ray.cluster.starting import start_once
from aft_ray.cluster.tasks import Helpers, in_tasks
from aft_ray.commands.library_log import LIBRARY_LOG
from aft_ray.commands.own_modules import find_own_modules, ray_settings
from aft_ray.commands.signals import take_signals
from aft_ray.recipe.config import Recipe, load
from aft_ray.recipe.errors import ClusterError, InputError
from aft_ray.recipe.places import place_at
from aft_ray.recipe.printable import tell
from aft_ray.recipe.secrets import redacted

if TYPE_CHECKING:
    from aft_ray.store.workspace import Workspace


T = TypeVar("T")

LONGEST_REASON = 300
"""Characters of Ray's reason that are shown."""
READING = ("plan",)
"""Verbs with a recipe that write nothing to its workspace."""


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The arguments RECIPE and key=value, which most verbs take."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file or its URL; 'aft-ray init PATH' writes one")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes, such as train.steps=100 (values are YAML)"
    )


def load_recipe(parsed: argparse.Namespace) -> Recipe:
    """The recipe that the arguments name, with their overrides. Makes the user's own classes in it importable. A verb calls this
    before it imports torch and the like, so that a mistyped key is told at once; a terminal shows a line before these seconds.

    Raises InputError also if its workspace cannot be used.
    """
    from aft_ray.store.reach import reached

    recipe = load(parsed.recipe, parsed.overrides)
    to_write = parsed.verb not in READING and not getattr(parsed, "dry_run", False)
    workspace = reached(recipe.workspace, to_write=to_write)
    if to_write:
        only = getattr(parsed, "range", None)  # commands that work on ranges write side by side
        own = f"-{only.replace('/', '-of-')}" if only else ""
        LIBRARY_LOG.goes_to(workspace, f"logs/{parsed.verb}-{recipe.run}{own}.log")
    find_own_modules(recipe)
    if sys.stderr.isatty():  # to a script each line is a fault, or progress of work
        tell(f"{parsed.verb} in {recipe.workspace} ...")
    return recipe


def workspace_at(place: str) -> Workspace:
    """The workspace that an argument RECIPE|WORKSPACE names. Raises InputError if it is not there or cannot be used."""
    from aft_ray.store.reach import reached

    is_recipe = place_at(place).suffix in (".yaml", ".yml")
    location = load(place).workspace if is_recipe else place
    workspace = reached(location, to_write=False)
    if workspace.is_local and not Path(workspace.path).exists():
        raise InputError(f"Workspace {location} does not exist. Name a recipe, or a workspace's directory or URL.")
    return workspace


def set_environment(*, own_cluster: bool = True) -> None:
    """Sets the variables that Ray reads when it is imported; variables that the user has set stay.

    A local cluster gets a token that only this process and its children know, and listens on the loopback interface alone.
    """
    os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # so that a recipe's relative paths mean the same everywhere
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # our own progress is shown
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # a report waits for the next check
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process of each training that only logs
    if own_cluster and not names_cluster():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # off means loopback, on every system
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def report_without_secrets() -> None:
    """Logs warnings, and makes them and tracebacks show `***` for secrets."""
    root = logging.getLogger()
    if LIBRARY_LOG not in root.handlers:
        root.addHandler(LIBRARY_LOG)
    sys.excepthook = _print_exception


def _start_ray(recipe: Recipe, place: str | None) -> None:
    """place: for the files of a local cluster.

    Raises ClusterError with the way out if Ray does not start or the cluster does not let us in.
    """
    import ray

    joins, settings = names_cluster(), ray_settings(recipe)
    dashboard = None if joins else False
    try:
        ray.init(
            address(),
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=place,
            **settings,
        )
    except Exception as error:  # Ray raises plain ones: of a node that timed out, of a version that differs
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        way_out = (
            "See that the cluster runs, with the same Ray and Python as here"
            if joins
            else "Set RAY_TMPDIR to a shorter path"
            if "AF_UNIX" in reason
            else "The machine may be too busy or short of memory: try again, or run 'ray start --head' and set"
            " RAY_ADDRESS=127.0.0.1:6379"
        )
        raise ClusterError(f"Ray {'could not join' if joins else 'did not start'}: {reason} {way_out}.") from error


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


@contextmanager
def helpers_of(recipe: Recipe, verb: str, cluster: Callable[..., AbstractContextManager[None]]) -> Iterator[Helpers]:
    """Tasks on a `cluster` that starts with the first of them, and ends with the context."""
    with start_once(partial(cluster, recipe, verb)) as start:

        def tasks(function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> Iterator[T]:
            start()
            return in_tasks(function, arguments, recipe.dataset.paths())

        yield Helpers(tasks)


@contextmanager
def ray_cluster(recipe: Recipe, verb: str, *others: Recipe) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS once it has the resources for `verb`, or starts a local one for the context.

    others: further recipes that must find room there.
    """
    joins = names_cluster()
    tell(f"{'joining the cluster of RAY_ADDRESS' if joins else 'starting Ray on this machine'} ...")
    if joins:
        check_answers()
    import ray

    with nullcontext() if joins else cluster_place() as place:
        try:
            _start_ray(recipe, place)
            take_signals()
            from aft_ray.cluster.preflight import check_room, preflight

            if joins:
                preflight(recipe, verb)
            check_room((recipe, *others), verb)
            yield
        finally:
            ray.shutdown()
