"""aft-ray submit: a verb as a job of a Ray cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aft_ray.commands.tables import console
from aft_ray.recipe.config import load
from aft_ray.recipe.printable import tell
from aft_ray.recipe.secrets import redacted

if TYPE_CHECKING:
    from aft_ray.cluster.submit import JobFile

SUMMARY = "run a verb as a job of a Ray cluster and follow it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=_job, metavar="VERB", help="the verb to run; it takes a recipe or a study")
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; it travels with the job")
    address = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    parser.add_argument("--address", default=address, help=f"the head's dashboard, {redacted(address)} by default")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="further arguments of the verb")


def _job(name: str) -> str:
    from aft_ray.commands import recipe_verbs

    if name not in recipe_verbs():
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(recipe_verbs())}")
    return name


def run(parsed: argparse.Namespace) -> int:
    from aft_ray.cluster.submit import ClusterGone, JobFile, connect, follow, submit
    from aft_ray.commands import parser_of, verbs
    from aft_ray.commands.parser import Parser

    own = Parser(prog="aft-ray submit", add_help=False)
    own.add_argument("--address", default=parsed.address)
    given, rest = own.parse_known_args(parsed.arguments)
    verb = parser_of(verbs()[parsed.job]).parse_args([parsed.recipe, *rest])
    options = [argument for argument in rest if argument not in verb.overrides]
    file, overrides = _study(verb) if parsed.job == "study" else (JobFile.of(load(verb.recipe, verb.overrides)), ())
    client, address, job = connect(given.address), redacted(given.address), None
    try:
        job = submit(client, file, parsed.job, [*overrides, *options], directory=Path.cwd())
        console.print(f"job {job} runs and writes to {file.workspace}", soft_wrap=True)
        status = follow(client, job, lambda text: print(text, end="", flush=True))
        console.print(f"job {job} ended with status {status}; results are in {file.workspace}", soft_wrap=True)
        return status
    except ClusterGone as error:
        tell(f"the cluster at {address} does not answer any more ({error}). {_whether_it_runs(job, address)}")
        return 1
    except KeyboardInterrupt:
        if job is None:
            raise
        print(
            f"aft-ray: the job keeps running. Follow it: ray job logs {job} --address {address} --follow",
            file=sys.stderr,
        )
        print(f"aft-ray: stop it: ray job stop {job} --address {address}", file=sys.stderr)
        return 1


def _study(verb: argparse.Namespace) -> tuple[JobFile, Sequence[str]]:
    """The study as a job's file, and the overrides of its settings.

    Raises InputError if its records would end with the job.
    """
    from aft_ray.cluster.submit import JobFile, check_outlives_job
    from aft_ray.recipe.config import fingerprint
    from aft_ray.study.config import load_study

    study = load_study(verb.study, verb.overrides)
    if study.records_at:
        check_outlives_job("records", study.records_at)
    return JobFile(study.text(), study.root, study.name, fingerprint(dict(study.content))), study.overrides


def _whether_it_runs(job: str | None, address: str) -> str:
    if job is None:
        return f"See whether the job started: ray job list --address {address}"
    return f"The job keeps running if the cluster does. Once the cluster answers: ray job logs {job} --address {address} --follow"
