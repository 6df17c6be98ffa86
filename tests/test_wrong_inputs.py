"""A table of wrong inputs: each ends with status 2 and one line for each fault, which names the key or file and the way out."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from aft_ray import cli

RECIPE = """\
workspace: made
dataset: {source: image_folder, path: pictures, samples_per_shard: 16}
student: {model: 'tiny:cnn'}
regularizer: {name: none}
train: {steps: 4, global_batch_size: 8}
"""
FILES = {
    "r.yaml": RECIPE,
    "empty.yaml": "",
    "list.yaml": "- a\n",
    "tab.yaml": f"{RECIPE}search:\n\tseeds: 1\n",
    "twice.yaml": f"{RECIPE}run: a\nrun: b\n",
    "itself.yaml": "a: &a [*a]\n",
    "study.yaml": f"{RECIPE}settings: {{a: {{b: {{train.stps: 3}}, c: {{train.steps: -3}}}}}}\n",
    "notes.txt": "x\n",
    "t.csv": "a,b\n1,2\n",
    "few.csv": "text,label\nx,1\n",
    "torn.jsonl": '{"text": "a", "label": 1}\n{"text": \n',
    "cut.parquet": "PAR1",
    "void/.keep": "",
}
WRONG = {
    # values and keys
    "train r.yaml train.steps=[": ["Override train.steps=[ is not valid YAML"],
    "train r.yaml 'search.beta=[1,2'": ["Override search.beta=[1,2 is not valid YAML"],
    "train r.yaml train.steps=abc": ["train.steps must be a whole number, got 'abc'"],
    "train r.yaml train.learning_rate=fast": ["train.learning_rate must be a number"],
    "train r.yaml train.steps=0 regularizer.beta=-1": ["regularizer.beta must be", "train.steps must be"],
    "train r.yaml train.stepps=3": ["Unknown key 'train.stepps'. Did you mean 'steps'?"],
    "train r.yaml train.steps": ["Override 'train.steps' must have the form key=value"],
    "train r.yaml train.steps.more=3": ["Override train.steps.more=3: 'train.steps' is not a section"],
    "train r.yaml train=3": ["train must be a section"],
    "train r.yaml run=../x": ["run: a name has letters"],
    "train r.yaml train.precision=fp8": ["train.precision must be 'fp32', 'bf16' or 'fp16'"],
    "keys train.stepps": ["No section or key 'train.stepps'. Did you mean 'train.steps'"],
    # recipes
    "train nowhere.yaml": ["Recipe nowhere.yaml does not exist"],
    "train void": ["Recipe void is a directory"],
    "train empty.yaml": ["Recipe empty.yaml is empty"],
    "train list.yaml": ["Recipe list.yaml must be a mapping of keys"],
    "train tab.yaml": ["Recipe tab.yaml is not valid YAML: line 7, column 1"],
    "train twice.yaml": ["Recipe twice.yaml: lines 6 and 7: key 'run' is given 2 times"],
    "train itself.yaml": ["Recipe itself.yaml is not valid YAML: line 1, column 4: an anchor refers to itself"],
    "train study.yaml": ["study.yaml has 'settings': it is a study"],
    "study r.yaml": ["A study needs 'settings'"],
    "study study.yaml": ["Setting b: Unknown key 'train.stps'", "Setting c: train.steps must be greater than 0"],
    # models and methods
    "train r.yaml student.model=tiny:rnn 'teachers=[tim:vit]' regularizer.name=atf": [
        "Unknown teacher library 'tim'",
        "Unknown student 'tiny:rnn'",
        "Unknown regularizer 'atf'",
    ],
    "train r.yaml regularizer.name=aft": ["'teachers' is empty"],
    "train r.yaml student.model=timm:resnet9000": ["timm knows no model 'resnet9000'. Did you mean"],
    "train r.yaml student.model=no.such:Class": ["Unknown student library 'no.such'"],
    "search r.yaml 'search.compare=[none, dk]' train.frozen_steps=9": [
        "train.frozen_steps is 9",
        "Unknown regularizer 'dk'",
    ],
    "search r.yaml search.seeds=1000000": ["The search would run 1e+06 trials"],
    "search r.yaml search.teachers=all": ["search.teachers must be"],
    # data and places
    "prepare r.yaml dataset.path=nowhere": ["dataset: the folder"],
    "prepare r.yaml dataset.path=notes.txt": ["dataset:"],
    "prepare r.yaml dataset.source=csv dataset.path=t.csv": ["dataset: source 'csv' needs columns.text"],
    "prepare r.yaml dataset.source=imagefolder": ["dataset.source must be one of image_folder"],
    "prepare r.yaml workspace=notes.txt": ["workspace"],
    "prepare r.yaml workspace=s3://": ["workspace must name a directory, or a bucket"],
    "prepare r.yaml workspace=ftp://x/y": ["ftp://x/y cannot be opened"],
    "extract r.yaml": ["The recipe names no teachers", "No samples in"],
    "evaluate r.yaml run=absent": ["{place}/made/runs/absent holds no trained student. Run 'aft-ray train' first"],
    "predict r.yaml void run=absent": ["{place}/made/runs/absent holds no trained student. Run 'aft-ray train' first"],
    "verify void": ["{place}/void holds neither samples nor features"],
    "list runs nowhere": ["Workspace nowhere does not exist"],
    "list runs": ["aft-ray list runs needs a recipe or a workspace"],
    "compare a b": ["{place}/a holds no run", "{place}/b holds no run"],
    # first recipes
    "init nowhere": ["nowhere does not exist. Name a folder"],
    "init void": ["void holds no samples that can be read"],
    "init notes.txt": ["notes.txt holds no samples that can be read"],
    "init few.csv": ["few.csv: No column looks like a label"],
    "init torn.jsonl": ["torn.jsonl, row 2: not JSON"],
    "init cut.parquet": ["{place}/cut.parquet cannot be read as parquet"],
    "init t.csv --label c": ["t.csv: There is no column 'c'. Columns: a, b"],
    # the command itself
    "dance": ["Argument VERB: invalid choice: 'dance'"],
    "train": ["The following arguments are required: RECIPE"],
    "train r.yaml --fast": ["Unrecognized arguments: --fast"],
    "submit train nowhere.yaml": ["Recipe nowhere.yaml does not exist"],
    "submit train r.yaml --fast": ["Unrecognized arguments: --fast. See 'aft-ray train --help'"],
    "submit train r.yaml --address": ["Argument --address: expected one argument. See 'aft-ray submit --help'"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wrong").resolve()
    for name, text in FILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_input_ends_with_status_2_and_a_line_for_each_fault(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        status = cli.main(shlex.split(command))
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    told, wanted = capsys.readouterr(), [f"aft-ray: {start.format(place=place)}" for start in WRONG[command]]
    lines = told.err.splitlines()
    assert status == 2 and told.out == "" and len(lines) == len(wanted), told.err
    assert all(line.startswith(start) for line, start in zip(lines, wanted, strict=True)), told.err
    assert not (place / "made").exists()
