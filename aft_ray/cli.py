"""The command line: `aft-ray VERB RECIPE [key=value ...]`. The only module that reads the environment."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aft_ray
from aft_ray.commands.tables import (
    console,
    print_table,
    show_estimate,
    show_leaderboard,
    show_list,
    show_predictions,
    show_ranking,
    show_samples,
    show_scores,
    show_search_plan,
    size,
)
from aft_ray.recipe.config import Recipe, load
from aft_ray.recipe.errors import InputError

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

VERBS = {
    "prepare": "split a data set and write it as aligned shards of samples",
    "plan": "say what an extraction would compute and cost, from a short trial of every teacher; write nothing",
    "extract": "run every teacher over the samples once and keep the features",
    "rank": "say how much every combination of teachers knows about the task, before training",
    "train": "train the student with the recipe's regularizer",
    "search": "search beta, teachers and methods on one cache, then compare the best on test",
    "evaluate": "test a finished run's student class by class",
    "export": "write a finished run's student as its own library loads it, with a model card",
    "predict": "ask a finished run's student about files or texts without labels",
    "report": "write everything the workspace holds as one HTML page",
    "pipeline": "prepare, extract, search, train the winner and report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done; 2 the input is wrong, one line per fault on stderr; 1 anything else."""
    parsed = _parser().parse_args(arguments)
    set_environment(own_cluster=parsed.verb != "submit")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return int(parsed.command(parsed) or 0)
    except InputError as error:
        for fault in error.faults:
            print(f"aft-ray: {fault}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (None, *UNWRITABLE):  # None: from an object store
            raise
        print(f"aft-ray: {error}. What was written is whole; the same command goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("aft-ray: stopped; the same command goes on from here.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aft-ray",
        description="Adaptive Feature Transfer on Ray: the task-relevant knowledge of large frozen teachers in a small"
        " student. A cluster is used when RAY_ADDRESS names one; otherwise everything runs on this machine.",
        epilog="Start with 'aft-ray demo'. Exit status: 0 done, 2 wrong input, 1 anything else.",
    )
    parser.add_argument("--version", action="version", version=f"aft-ray {aft_ray.__version__}")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    demo = commands.add_parser("demo", help="the whole story on bundled real data, offline, in three to five minutes")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the demo's recipe")
    demo.set_defaults(command=_demo)
    for verb, summary in VERBS.items():
        command = commands.add_parser(verb, help=summary, description=summary)
        command.add_argument("recipe", metavar="RECIPE", help="a YAML file; see jobs/recipes/")
        if verb == "predict":
            what = (
                "an image or a folder of them, lines of text (.txt), or a table (.csv, .jsonl, .parquet); a path or URL"
            )
            command.add_argument("path", metavar="PATH", help=what)
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="changes, such as train.steps=100 (values are YAML)"
        )
        if verb == "prepare":
            command.add_argument("--overwrite", action="store_true", help="replace the samples that are there")
        if verb == "extract":
            command.add_argument("--overwrite", action="store_true", help="compute again what is there already")
        if verb == "search":
            command.add_argument(
                "--dry-run", action="store_true", help="print the trials and their cost; start nothing"
            )
        if verb == "evaluate":
            command.add_argument("--split", default="test", help="train, validation or test (default)")
        if verb == "export":
            command.add_argument("--onnx", action="store_true", help="also write model.onnx, checked against torch")
        if verb == "predict":
            place = "a directory or URL; <workspace>/predictions/<run>/ by default"
            command.add_argument("--output", metavar="DIRECTORY", help=place)
            command.add_argument("--probabilities", action="store_true", help="keep those of all classes")
        command.set_defaults(command=globals()[f"_{verb}"])
    submit = commands.add_parser("submit", help="run a verb as a job of a Ray cluster and follow it")
    submit.add_argument("job", choices=VERBS, metavar="VERB", help="what to run: " + ", ".join(VERBS))
    submit.add_argument("recipe", metavar="RECIPE", help="a YAML file; it travels with the job")
    address = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    submit.add_argument("--address", default=address, help=f"the head's dashboard, {address} by default")
    submit.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the verb takes besides")
    submit.set_defaults(command=_submit)
    verify = commands.add_parser("verify", help="re-read every manifest and checksum of a workspace")
    verify.add_argument("place", metavar="RECIPE|WORKSPACE", help="a recipe, or a workspace's directory or URL")
    verify.set_defaults(command=_verify)
    listing = commands.add_parser("list", help="what can be named in a recipe")
    listing.add_argument("kind", choices=("teachers", "students", "datasets", "regularizers"))
    listing.set_defaults(command=_list)
    return parser


def _prepare(parsed: argparse.Namespace) -> None:
    from aft_ray.datasets.prepare import prepare

    recipe = _load(parsed)
    manifests = prepare(recipe, overwrite=parsed.overwrite)
    show_samples(recipe, manifests)


def _plan(parsed: argparse.Namespace) -> None:
    from aft_ray.extraction.estimate import plan
    from aft_ray.training.check import check

    recipe = _load(parsed)
    check(recipe)
    with ray_cluster(recipe, "plan"):
        found = plan(recipe)
    show_estimate(recipe, found)


def _extract(parsed: argparse.Namespace) -> None:
    from aft_ray.extraction.extract import extract
    from aft_ray.training.check import check

    recipe = _load(parsed)
    check(recipe)
    with ray_cluster(recipe, "extract"):
        made = extract(recipe, overwrite=parsed.overwrite)
    print_table(f"Features in {recipe.workspace}", ["teacher", "new shards"], [[n, c] for n, c in made.items()])


def _rank(parsed: argparse.Namespace) -> None:
    from aft_ray.search.rank import rank

    recipe = _load(parsed)
    ranking = rank(recipe)
    show_ranking(recipe, ranking)


def _train(parsed: argparse.Namespace) -> None:
    from aft_ray.training.runs import read_history
    from aft_ray.training.train import train

    recipe = _ready(parsed)
    with ray_cluster(recipe, "train"):
        run = train(recipe)
    last = read_history(run)[-1]
    accuracy = last["test_accuracy"]
    score = f"test loss {last['test_loss']:.4f}" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %"
    console.print(f"{score}  ->  {run}", soft_wrap=True)


def _search(parsed: argparse.Namespace) -> None:
    from aft_ray.search.search import search

    recipe = _ready(parsed)
    if parsed.dry_run:
        from aft_ray.search.estimate import estimate_search

        show_search_plan(recipe, estimate_search(recipe))
        return
    with ray_cluster(recipe, "search"):
        search(recipe)
    show_leaderboard(recipe)


def _evaluate(parsed: argparse.Namespace) -> None:
    from aft_ray.export.evaluate import evaluate

    recipe = _load(parsed)
    result = evaluate(recipe, parsed.split)
    show_scores(recipe, result)


def _export(parsed: argparse.Namespace) -> None:
    from aft_ray.export.export import export

    place = export(_load(parsed), onnx=parsed.onnx)
    rows = [[name, size(num_bytes)] for name, num_bytes in sorted(place.sizes().items())]
    print_table(f"Exported to {place}", ["file", "size"], rows)
    console.print(f"how to load it: {place}/README.md", soft_wrap=True)


def _predict(parsed: argparse.Namespace) -> None:
    from aft_ray.export.predict import predict

    recipe = _load(parsed)
    with ray_cluster(recipe, "predict"):
        summary = predict(recipe, parsed.path, output=parsed.output, all_probabilities=parsed.probabilities)
    show_predictions(parsed.path, summary)


def _report(parsed: argparse.Namespace) -> None:
    from aft_ray.report.report import report

    console.print(f"report: {report(_load(parsed))}", soft_wrap=True)


def _pipeline(parsed: argparse.Namespace) -> None:
    _run_pipeline(_load(parsed))


def _demo(parsed: argparse.Namespace) -> None:
    _run_pipeline(load(demo_recipe(), parsed.overrides))


def _run_pipeline(recipe: Recipe) -> None:
    from aft_ray.commands.pipeline import pipeline
    from aft_ray.training.check import check

    check(recipe)
    started = time.perf_counter()

    def announce(stage: str) -> None:
        console.print(f"[bold]\\[{time.perf_counter() - started:5.1f} s][/bold] {stage}", soft_wrap=True)

    with ray_cluster(recipe, "pipeline"):
        page = pipeline(recipe, announce)
    show_leaderboard(recipe)
    console.print(f"report: {page}  ({time.perf_counter() - started:.0f} s in all)", soft_wrap=True)


def _submit(parsed: argparse.Namespace) -> int:
    from aft_ray.cluster.submit import connect, follow, submit

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--address", default=parsed.address)
    given, rest = own.parse_known_args(parsed.arguments)
    verb = _parser().parse_args([parsed.job, parsed.recipe, *rest])
    recipe = _load(verb)
    arguments = [argument for argument in rest if argument not in verb.overrides]
    client = connect(given.address)
    job = submit(client, recipe, parsed.job, arguments, directory=Path.cwd())
    again = f"ray job logs {job} --address {given.address} --follow"
    try:
        console.print(f"job {job} runs; what it writes goes to {recipe.workspace}", soft_wrap=True)
        status = follow(client, job, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"aft-ray: the job goes on. Follow it: {again}", file=sys.stderr)
        print(f"aft-ray: stop it: ray job stop {job} --address {given.address}", file=sys.stderr)
        return 1
    console.print(f"job {job} ended with status {status}; results are in {recipe.workspace}", soft_wrap=True)
    return status


def _verify(parsed: argparse.Namespace) -> int:
    from aft_ray.store.workspace import Workspace

    workspace = Workspace.at(load(parsed.place).workspace if parsed.place.endswith((".yaml", ".yml")) else parsed.place)
    stores = list(workspace.stores())
    if not stores:
        raise InputError(f"{workspace} holds neither samples nor features.")
    faults = [fault for store in stores for fault in store.faults()]
    for fault in faults:
        print(fault, file=sys.stderr)
    console.print(f"{len(stores)} directories read, {len(faults)} faults")
    return 1 if faults else 0


def _list(parsed: argparse.Namespace) -> None:
    show_list(parsed.kind)


def demo_recipe() -> Path:
    """The demo's recipe: inside the installed package, or in the checkout's `jobs/recipes/`."""
    package = Path(aft_ray.__file__).parent
    installed = package / "recipes" / "demo.yaml"
    return installed if installed.exists() else package.parent / "jobs" / "recipes" / "demo.yaml"


def _load(parsed: argparse.Namespace) -> Recipe:
    return load(parsed.recipe, parsed.overrides)


def _ready(parsed: argparse.Namespace) -> Recipe:
    """A recipe whose faults and missing features are found before a cluster is started for it."""
    from aft_ray.training.check import check
    from aft_ray.training.inputs.stores import open_stores

    recipe = _load(parsed)
    check(recipe)
    open_stores(recipe)
    return recipe


def set_environment(*, own_cluster: bool = True) -> None:
    """Ray's settings that can only be given through the environment, and only before ray is imported.

    What the user has set stays. A cluster of our own gets a token that only this process and its children know, and
    listens on the loopback interface alone.
    """
    sys.path.insert(0, os.getcwd())  # teachers of the user's own, here and in the workers
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a recipe's relative paths mean the same everywhere
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the progress shown is ours
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # a report waits for the next check
    if own_cluster and os.environ.get("RAY_ADDRESS", "local") == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # off means loopback, on every system
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def ray_cluster(recipe: Recipe, verb: str) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS, once it has what `verb` needs, or starts one on this machine for as long as the
    context lasts.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS", "local")
    dashboard = False if address == "local" else None
    ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address != "local":
            from aft_ray.cluster.preflight import preflight

            preflight(recipe, verb)
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
