"""A study's size is told before anything starts; the paper's studies are told without the model hub."""

from __future__ import annotations

import math
from pathlib import Path

import huggingface_hub.constants
import pytest

from aft_ray.cli import main
from aft_ray.commands.study_plan import simulated_nodes
from aft_ray.models.sizes import size_of
from aft_ray.recipe.errors import InputError
from aft_ray.study.config import load_study
from aft_ray.study.estimate import GPU_RATE, plan_study
from tests.helpers import ROOT
from tests.study.test_config import written
from tests.study.test_report import finished

pytestmark = pytest.mark.slow

PAPER = sorted(path for path in (ROOT / "jobs" / "recipes" / "paper").glob("*.yaml") if "settings:" in path.read_text())


def test_trainings_features_and_their_arithmetic_are_counted(tmp_path: Path) -> None:
    small = written(tmp_path, ("timm:test_vit", "timm:vit_small_patch16_224.augreg_in1k"))
    study = load_study(small, ["train.steps=10", "search.beta=[1,2,4]", "search.final.seeds=2"])
    plan = plan_study(study, simulated_nodes(8, 16))
    assert [(setting.trials, setting.finals) for setting in plan.settings] == [(1 + 3, 2 * 2)] * 4
    assert plan.trainings == 32 and not list(tmp_path.glob("place*"))
    (digits, scans) = plan.data
    assert (digits.samples, scans.samples) == (160, 160) and digits.feature_bytes == 160 * 384 * 2
    unknown = load_study(written(tmp_path, ("timm:test_vit", "my.own:Teacher")))
    data = plan_study(unknown, simulated_nodes(8, 16)).data[0]
    assert data.unknown == ["a"] and data.feature_bytes == 0


def test_sizes_are_those_of_the_published_models() -> None:
    size = size_of("timm:vit_small_patch16_224.augreg_in1k")
    assert size is not None and (round(size.parameters / 1e6, 1), size.width, round(size.flops / 1e9, 1)) == (
        21.7,
        384,
        9.2,
    )
    assert size_of("timm:hf-hub:someone/something") is None and size_of("my.own:Teacher") is None


def test_a_simulated_cluster_has_eight_gpus_on_a_node() -> None:
    assert simulated_nodes(1, None) == [{"CPU": 8.0, "GPU": 1.0}]
    nodes = simulated_nodes(12, None)
    assert [node["GPU"] for node in nodes] == [8.0, 4.0] and math.fsum(node["CPU"] for node in nodes) == 96


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_study_of_the_paper_is_planned_offline(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(ROOT)
    assert main(["study", str(path), "--dry-run", "--gpus", "8"]) == 0
    told = capsys.readouterr().out
    assert "\ntrainings " in told and "\ntakes     roughly " in told and "\ndisk " in told


def test_a_dry_run_counts_what_is_left_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path))
    finished(load_study(path), "digits-few", "digits-all", "scans-few")
    assert main(["study", path, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "scans-all" in told and "digits-few" not in told
    assert "left out  3 of 4 settings: finished, or not named by --only" in told
    assert main(["study", path, "--dry-run", "--only", "digits-all"]) == 0
    assert "left out  4 of 4 settings" in capsys.readouterr().out


def test_a_dry_run_counts_the_methods_that_a_setting_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path))
    finished(load_study(path), "digits-few", "digits-all", "scans-few")
    more = "search.compare=[none, aft, aft_probe]"
    assert main(["study", path, more, "--dry-run", "--only", "digits-few"]) == 0
    told = capsys.readouterr().out
    assert "left out  of digits-few: AFT, standard transfer: finished" in told
    lacking = "search.compare=[aft_probe]"
    assert main(["study", path, lacking, "--dry-run", "--only", "digits-few"]) == 0
    assert [line for line in told.splitlines() if line.startswith("trainings")] == [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("trainings")
    ]


def test_pairs_are_as_many_inputs_as_they_have_pictures_and_texts() -> None:
    path = ROOT / "jobs" / "recipes" / "paper" / "snli-ve.yaml"
    nodes = simulated_nodes(1, None)
    (data,) = plan_study(load_study(path), nodes).data
    assert (data.samples, data.pictures) == (529_527, 29_783)
    image, text = (size_of("open_clip:ViT-L-14/laion2b_s32b_b82k", tower=tower) for tower in ("image", "text"))
    assert image is not None and text is not None and text.flops < image.flops / 10
    operations = data.pictures * image.flops + data.samples * text.flops
    assert data.device_hours == pytest.approx(operations / GPU_RATE / 3600)
    (part,) = plan_study(load_study(path, ["dataset.max_samples=20000"]), nodes).data
    assert 0.9 * min(part.samples, 29_783) > part.pictures > 0.4 * part.samples, (
        "some of the chosen pairs share a picture"
    )


def test_figure_1b_has_1521_trainings_in_two_commands() -> None:
    plans = [
        plan_study(load_study(path), simulated_nodes(8, None)) for path in PAPER if path.stem.startswith("figure-1b")
    ]
    assert len(plans) == 2 and sum(plan.trainings for plan in plans) == 1521


def test_a_teacher_without_room_and_a_wrong_name_are_faults_of_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = written(tmp_path, ('model: "timm:test_vit"', 'model: "timm:test_vit", num_gpus: 2'))
    with pytest.raises(InputError, match="Teacher 'a': 2 GPUs are asked for, the cluster has 1."):
        plan_study(load_study(wrong), simulated_nodes(1, None))
    assert main(["study", str(written(tmp_path, ("timm:test_vit", "timm:tset_vit"))), "--dry-run"]) == 2
    assert "timm knows no model 'tset_vit'" in capsys.readouterr().err
