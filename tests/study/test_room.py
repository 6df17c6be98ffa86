"""Settings run side by side where final runs of one leave room, and one by one on a small machine."""

from __future__ import annotations

from pathlib import Path

from aft_ray.commands.study_plan import simulated_nodes
from aft_ray.study.config import load_study
from aft_ray.study.room import at_once
from tests.study.test_config import written


def test_as_many_settings_run_as_have_room_for_their_final_runs(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))  # two methods, three final runs each
    names = list(study.settings)
    cpus = {count: at_once(study, names, simulated_nodes(None, count)) for count in (2, 6, 12, 18, 64)}
    assert cpus == {2: 1, 6: 1, 12: 2, 18: 3, 64: 4}, "and there are four settings"
    assert at_once(study, names[:1], simulated_nodes(None, 64)) == 1
    on_gpus = load_study(written(tmp_path), ["search.gpus_per_trial=0.5"])
    assert [at_once(on_gpus, names, simulated_nodes(gpus, 500)) for gpus in (2, 6, 9)] == [1, 2, 3]
    short = load_study(written(tmp_path), ["search.beta=[1]"])  # two trials, then six final runs
    assert at_once(short, names, simulated_nodes(None, 6)) == 1
    narrow = load_study(written(tmp_path), ["search.max_concurrent_trials=2"])
    assert at_once(narrow, names, simulated_nodes(None, 6)) == 3
