"""Where a run's metrics go besides `metrics.jsonl`: TensorBoard always, MLflow and Weights & Biases where the recipe says.

A run that goes on logs its checkpoint's evaluations again: nothing that a killed run did is missing, or there twice. On a local
disk TensorBoard's file grows in `tensorboard/`; to an object store it is copied at every evaluation.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import TypedDict

from aft_ray.cluster.address import names_cluster
from aft_ray.cluster.scratch import scratch
from aft_ray.models.adapters import hidden
from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.recipe.errors import WorkerError, in_a_line
from aft_ray.regularizers.distributed import rank
from aft_ray.store.files import Directory
from aft_ray.training.runs import RunDirectory

EVENTS = "events.out.tfevents."
"""How the names of TensorBoard's files begin."""


class Tracker(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self, *, failed: bool = False) -> None:
        """Ends the run there, as finished or as failed."""


def faults(recipe: Recipe) -> list[str]:
    """One line per tracker of the recipe that is not installed, or that nobody is logged in to on this machine. On a cluster,
    where the training runs elsewhere, `WandbTracker` tells that."""
    lacking = [name for name in recipe.train.trackers if importlib.util.find_spec(name) is None]
    found = [
        f"train.trackers names {name}, which is not installed. Run pip install 'aft-ray[trackers]', or leave it out."
        for name in lacking
    ]
    if "wandb" in {*recipe.train.trackers} - {*lacking} and not names_cluster() and (reason := _no_login()):
        found.append(_not_logged_in(reason))
    return found


def _no_login() -> str | None:
    """Why W&B would ask who the user is; None where it works offline, and from versions that do not say so without asking."""
    import wandb
    from wandb.sdk import wandb_setup

    if "prompt" not in inspect.signature(wandb.login).parameters:
        return None
    try:
        is_offline = wandb_setup.singleton().settings.mode not in ("online", "shared")
        is_known = is_offline or wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        return in_a_line(error)
    return None if is_known else "nobody is logged in on this machine"


def _not_logged_in(reason: str) -> str:
    return (
        f"train.trackers names wandb: {reason}. Run 'wandb login' or set WANDB_API_KEY where the training runs, keep the metrics"
        " on its disk with WANDB_MODE=offline, or leave wandb out."
    )


@contextmanager
def open_trackers(recipe: Recipe, run: Directory, history: Sequence[Mapping[str, Any]]) -> Iterator[Trackers]:
    """The trackers of a run that goes on after the lines of `history`; of the main worker only, the others' are silent.

    All are closed at the end, also where one cannot be; an exception inside ends the run as failed there.
    """
    kinds: dict[str, type[MlflowTracker | WandbTracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}
    trackers = Trackers([])
    with ExitStack() as ends:

        def add(tracker: Tracker) -> None:
            trackers.all.append(tracker)
            ends.push(lambda kind, error, trace: tracker.close(failed=kind is not None))

        if rank() == 0:
            add(TensorBoard(run))
            for name in recipe.train.trackers:
                add(kinds[name](recipe, run))
        for line in history:
            trackers.log(line)
        yield trackers


@dataclass(frozen=True)
class Trackers:
    all: list[Tracker]

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, without keys that have no value, such as a regression's accuracy."""
        metrics = {k: float(v) for k, v in line.items() if k != "step" and v is not None and math.isfinite(v)}
        for tracker in self.all:
            tracker.log(line["step"], metrics)


class TensorBoard:
    """One file of events in `tensorboard/`, complete after every line; begun anew by a run that goes on."""

    def __init__(self, run: Directory) -> None:
        with hidden("boto3"):  # it would write to buckets; our own files do
            from tensorboardX.event_file_writer import EventsWriter

        self.place = run / "tensorboard"
        for name in self.place.names():
            if name.startswith(EVENTS):
                self.place.delete_file(name)
        self.ends = ExitStack()
        self.folder = Path(self.place.path) if run.is_local else self.ends.enter_context(scratch())
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(self.folder / "events"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self.writer.flush()
        if not self.place.is_local:
            for path in self.folder.iterdir():
                self.place.write(path.name, path.read_bytes())

    def close(self, *, failed: bool = False) -> None:
        self.writer.close()
        self.ends.close()


class LoggedRun(TypedDict):
    """mlflow.json."""

    run_id: str
    step: int


def logged_run(run: Directory) -> dict[str, Any]:
    """The content of mlflow.json; empty for a run that was not logged."""
    way_out = "Delete it: the run is then logged as a new one."
    return run.read_json("mlflow.json", LoggedRun, way_out) if run.has("mlflow.json") else {}


class MlflowTracker:
    """One MLflow run per run; `mlflow.json` beside the run remembers which, and the last step that was logged.

    Raises WorkerError if the server does not answer, or does not have that run.
    """

    def __init__(self, recipe: Recipe, run: Directory) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._open(recipe, run)
        except MlflowException as error:
            raise WorkerError(
                f"train.trackers names mlflow: {in_a_line(error)}. See that the server of MLFLOW_TRACKING_URI runs, correct that"
                " variable or unset it, or leave mlflow out."
            ) from error

    def _open(self, recipe: Recipe, run: Directory) -> None:
        import mlflow

        self.run = run
        known = logged_run(run)
        self.client = mlflow.MlflowClient()
        self.step: int = known.get("step", 0)
        self.run_id: str = known.get("run_id") or self._create(recipe)
        if known:  # an earlier process has ended it
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            self._remember()

    def _create(self, recipe: Recipe) -> str:
        name = "aft_ray"
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        run_id = self.client.create_run(experiment_id, run_name=recipe.run).info.run_id
        for key, value in settings(recipe).items():
            self.client.log_param(run_id, key, value)
        return run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step > self.step:
            for name, value in metrics.items():
                self.client.log_metric(self.run_id, name, value, step=step)
            self.step = step
            self._remember()

    def _remember(self) -> None:
        self.run.write_json("mlflow.json", {"run_id": self.run_id, "step": self.step})

    def close(self, *, failed: bool = False) -> None:
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class WandbTracker:
    """One W&B run per run, with the run's own id: a directory of the same name may hold another run elsewhere, or later. W&B
    itself refuses steps that it has. Raises WorkerError if it does not let us in."""

    def __init__(self, recipe: Recipe, run: Directory) -> None:
        import wandb

        own = RunDirectory(run).run_id or fingerprint(str(run))  # a run of before has no id
        try:
            self.wandb_run = wandb.init(
                project="aft_ray", name=recipe.run, id=own, resume="allow", config=settings(recipe)
            )
        except wandb.Error as error:
            raise WorkerError(_not_logged_in(in_a_line(error))) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.wandb_run.log(dict(metrics), step=step)

    def close(self, *, failed: bool = False) -> None:
        self.wandb_run.finish(exit_code=int(failed))


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's sections that make a run, with dotted keys."""
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in ("student", "regularizer", "train")}
    flat = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return flat | {"teachers": ", ".join(recipe.teacher_names())}
