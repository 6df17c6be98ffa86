from __future__ import annotations

import json
from pathlib import Path

from aft_ray.extraction.log import Tally
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.workspace import Workspace


def result(samples: int, batch_size: int, actor: str = "node 1") -> dict:
    return {
        "entry": {"num_samples": samples},
        "seconds": 2.0,
        "write_seconds": 0.5,
        "batch_size": batch_size,
        "actor": actor,
    }


def test_lines_tell_progress_per_teacher_and_every_lowered_batch(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    teachers = {name: TeacherConfig(name=name, model="timm:x", batch_size=64) for name in ("a", "b")}
    tally = Tally(workspace, teachers, {"a": 3, "b": 2})
    tally.add("a", result(10, 64))
    tally.add("a", result(10, 32))
    tally.add("b", {})
    tally.log("end")
    lines = [json.loads(line) for line in (tmp_path / "extract.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "batch_size_lowered", "end"]
    last = lines[-1]["teachers"]
    assert (last["a"]["samples"], last["a"]["shards"], last["a"]["shards_left"]) == (20, 2, 1)
    assert (last["a"]["batch_size"], last["b"]["batch_size"]) == (32, 64)
    assert last["a"]["samples_per_s"] > 0 and last["a"]["seconds_left"] > 0 and 0 < last["a"]["busy"] <= 1
    assert (last["b"]["shards"], last["b"]["shards_left"], last["b"]["seconds_left"]) == (0, 1, None)
    assert tally.note.startswith("a ") and "busy" in tally.note

    Tally(workspace, teachers, {"a": 1, "b": 1})
    assert len((tmp_path / "extract.jsonl").read_text().splitlines()) == 4


def test_an_actor_counts_from_its_first_shard_to_its_last(tmp_path: Path) -> None:
    tally = Tally(Workspace.at(tmp_path), {"a": TeacherConfig(name="a", model="timm:x")}, {"a": 4})
    for actor in ("lost", "here", "joined"):
        tally.add("a", result(10, 64, actor))
    facts = tally.facts("a")
    assert facts["actors"] == 3 and round(facts["busy"], 2) == 0.8, "2 of 2.5 s, however many actors there are"
    assert facts["samples_per_s"] < 30 / 2.5 + 1
