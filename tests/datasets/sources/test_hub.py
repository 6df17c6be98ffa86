"""Every named task on a small copy in the hub's files, and what the hub source does without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hub_library
import pytest

from aft_ray import datasets
from aft_ray.datasets import NAMED, list_samples
from aft_ray.datasets.named import hub_tasks
from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.sources import hub
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.side_by_side import open_store
from tests.helpers.hub_data import REPOSITORIES, as_dataset, write_copy

pytestmark = pytest.mark.slow

TASKS = {task.name: task for task in (*hub_tasks.IMAGES, *hub_tasks.TEXTS, *hub_tasks.PAIRS)}
PROMPTS = {
    "imdb": "text {i} of {s}, class {c} Overall, the sentiment of my review is",
    "boolq": "Question: question {i} of {s}, class {c}\nReference: passage {i} of {s}, class {c}\nAnswer: ",
    "mnli": "Premise: premise {i} of {s}, class {c}\nHypothesis: hypothesis {i} of {s}, class {c}\n"
    "Does the premise entail the hypothesis? Answer: ",
    "mrpc": "Sentence 1: sentence1 {i} of {s}, class {c}\nSentence 2: sentence2 {i} of {s}, class {c}\n"
    "Is Sentence 1 equivalent to Sentence 2? Answer: ",
    "sst2": 'Review: "sentence {i} of {s}, class {c}"\nSentiment: ',
    "cola": 'Is the sentence "sentence {i} of {s}, class {c}" grammatical? Answer: ',
    "qnli": "Question: question {i} of {s}, class {c}\nSentence: sentence {i} of {s}, class {c}\n"
    "Does the sentence answer the question? Answer: ",
    "rte": "Sentence 1: sentence1 {i} of {s}, class {c}\nSentence 2: sentence2 {i} of {s}, class {c}\n"
    "Does Sentence 1 entail Sentence 2? Answer: ",
    "qqp": "Question 1: question1 {i} of {s}, class {c}\nQuestion 2: question2 {i} of {s}, class {c}\n"
    "Are Question 1 and Question 2 equivalent? Answer: ",
    "snli_ve": "hypothesis {i} of {s}, class {c}",
}
PROMPTS |= {"mnli_mismatched": PROMPTS["mnli"], "wnli": PROMPTS["rte"]}
TESTED_ON = {"food101": "validation", "mnli": "validation_matched", "mnli_mismatched": "validation_mismatched"}
TESTED_ON |= dict.fromkeys(("boolq", "mrpc", "sst2", "cola", "qnli", "rte", "qqp", "wnli"), "validation")


def dataset(**keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(keys)


def recipe(tmp_path: Path, **keys: object) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": keys, "student": {"model": "tiny:cnn"}}
    )


def test_every_task_has_a_copy() -> None:
    assert set(TASKS) == set(REPOSITORIES)


@pytest.mark.parametrize("task", TASKS)
def test_named_task_is_prepared_from_a_copy_in_the_hub_s_files(tmp_path: Path, task: str) -> None:
    path = write_copy(tmp_path / "copy", task)
    given = recipe(tmp_path, name=task, path=str(path))
    assert datasets.faults(given.dataset) == []
    assert NAMED[task].missing(given.dataset) is None
    manifests = prepare(given)
    record, schema = TASKS[task], [*REPOSITORIES[task].values()][-1]
    tested_on = TESTED_ON.get(task, "test")
    for split, manifest in manifests.items():
        assert manifest["modality"] == record.modality and manifest["task"] == "classification"
        assert manifest["classes"] == schema.names and len(schema.names) == record.num_classes
        assert manifest["num_unlabelled"] == 0
        assert manifest["truncation_side"] == (record.truncation_side if schema.texts else None)
        own = {sample.split("/")[0] for sample in open_store(given.workspace, split).read_shard(0)["sample_id"]}
        trained_on = {"train", "validation"} if task == "fgvc_aircraft" else {"train"}
        assert own <= ({tested_on} if split == "test" else trained_on)
    count = max(40, 2 * record.num_classes)
    assert manifests["test"]["num_samples"] == count
    trained = manifests["train"]["num_samples"] + manifests["validation"]["num_samples"]
    assert trained == count * (2 if task == "fgvc_aircraft" else 1)
    shard = open_store(given.workspace, "test").read_shard(0)
    if task in PROMPTS:
        index = int(shard["sample_id"][0].split("/")[1]) - 1
        label = index % record.num_classes
        assert shard["label"][0] == label
        assert shard["text"][0] == PROMPTS[task].format(i=index, s=tested_on, c=label)
    if "image" in record.modality:
        assert shard["image"][0].startswith(b"\x89PNG")


def test_the_reference_s_faulty_prompts_can_be_had(tmp_path: Path) -> None:
    imdb, qnli = (write_copy(tmp_path / task, task, 20) for task in ("imdb", "qnli"))
    listing = list_samples(dataset(name="imdb", path=str(imdb), prompt="reference"))
    assert str(listing.read(0)).endswith("class 0Overall, the sentiment of my review is")
    sides = {
        prompt: list_samples(dataset(name="qnli", path=str(qnli), prompt=prompt)).truncation_side
        for prompt in (None, "reference")
    }
    assert sides == {None: "left", "reference": "right"}
    own = list_samples(dataset(name="imdb", path=str(imdb), prompt="{text} So?", truncation_side="right"))
    assert str(own.read(3)).endswith("class 1 So?") and own.truncation_side == "right"
    (line,) = datasets.faults(dataset(name="imdb", path=str(imdb), prompt="{review} So?"))
    assert "prompt names 'review'; columns.text: text" in line


def test_a_recipe_that_was_written_out_in_full_reads_the_same(tmp_path: Path) -> None:
    path = write_copy(tmp_path / "copy", "cifar100")
    given = recipe(tmp_path, name="cifar100", path=str(path))
    again = override(given, {"train.seed": 3})
    assert list_samples(again.dataset).items == list_samples(given.dataset).items


def test_arrow_files_and_saved_data_sets_are_copies_too(tmp_path: Path) -> None:
    import datasets as hub_library

    schema = REPOSITORIES["cola"][""]
    splits = {split: as_dataset(schema, split, 20) for split in schema.splits}
    saved, cached = tmp_path / "saved", tmp_path / "cached"
    hub_library.DatasetDict(splits).save_to_disk(saved)
    cached.mkdir()
    for split in splits:
        (cached / f"glue-{split}.arrow").write_bytes(next((saved / split).glob("*.arrow")).read_bytes())
    parquet = list_samples(dataset(name="cola", path=str(write_copy(tmp_path / "parquet", "cola", 20))))
    for place in (saved, cached):
        listing = list_samples(dataset(name="cola", path=str(place)))
        assert (listing.items, listing.classes) == (parquet.items, parquet.classes)
        assert [listing.read(index) for index in range(40)] == [parquet.read(index) for index in range(40)]


def test_a_stream_reads_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_copy(tmp_path / "copy", "oxford_pets")
    local = list_samples(dataset(name="oxford_pets", path=str(path)))
    monkeypatch.setattr(hub, "local_folder", lambda config, repo: None)
    streamed = list_samples(dataset(name="oxford_pets", repo=str(path)))
    assert streamed.classes == local.classes and len(streamed.items) == len(local.items)
    content = {item: local.read(index) for index, item in enumerate(local.items)}
    assert {item: streamed.read(index) for index, item in enumerate(streamed.items)} == content


def test_without_a_network_one_line_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare(recipe(tmp_path, name="sst2"))
    (line,) = caught.value.faults
    assert "nyu-mll/glue cannot be read from the hub" in line
    assert "hf download nyu-mll/glue --repo-type dataset --local-dir DIR; then set dataset.path to DIR." in line
    assert datasets.faults(dataset(name="sst2")) == []  # it may have been prepared already
    hint = NAMED["dtd"].missing(dataset(name="dtd"))
    assert hint and "--revision refs/convert/parquet" in hint


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"path": "/nowhere"}, "/nowhere: no Parquet or Arrow files there"),
        ({"columns": {"id": "key"}}, "has no column 'key' (columns.id). Columns: label, sentence, idx."),
        ({"splits": {"train": "train", "test": "held_out"}}, "dataset.splits.test: .* has no split called held_out."),
    ],
)
def test_a_copy_that_does_not_fit_is_refused(tmp_path: Path, config: dict, fault: str) -> None:
    path = str(write_copy(tmp_path / "copy", "sst2", 20))
    lines = datasets.faults(dataset(name="sst2", **{"path": path, **config}))
    pattern = fault if "splits" in config else re.escape(fault)
    assert any(re.search(pattern, line) for line in lines), lines


def test_class_names_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    path = write_copy(tmp_path / "copy", "sst2", 20)
    turned = replace(REPOSITORIES["sst2"][""], classes=("negative", "good"))
    as_dataset(turned, "validation", 20).to_parquet(next(path.rglob("validation*.parquet")))
    with pytest.raises(InputError, match="The class names of train and validation differ: good, positive."):
        list_samples(dataset(name="sst2", path=str(path)))


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = write_copy(tmp_path / "copy", "mnli", 30)
    with pytest.raises(InputError, match="mrpc has 2 classes, .* has 3"):
        list_samples(
            dataset(
                name="mrpc",
                path=str(path),
                columns={"text": ("premise", "hypothesis")},
                splits={"train": "train", "test": "validation_matched"},
                prompt="{premise} {hypothesis}",
            )
        )


def test_a_task_of_two_repositories_names_both_and_takes_them_in_one_folder(tmp_path: Path) -> None:
    hint = NAMED["snli_ve"].missing(dataset(name="snli_ve"))
    assert hint and "SNLI-VE_train --repo" in hint and "SNLI-VE_test --repo" in hint
    apart = write_copy(tmp_path / "apart", "snli_ve", 40)
    together = tmp_path / "together" / "data"
    together.mkdir(parents=True)
    for file in apart.rglob("*.parquet"):
        (together / file.name).write_bytes(file.read_bytes())
    listings = [list_samples(dataset(name="snli_ve", path=str(path))) for path in (apart, together.parent)]
    assert listings[0].items == listings[1].items and len(listings[0].items) == 80
    assert [item.group for item in listings[0].items[:3]] == ["0", "1", "2"], "pairs of one picture stay in one split"


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("call", ["map", "shuffle"])
def test_caches_beside_a_saved_data_set_are_not_read(tmp_path: Path, call: str, has_state: bool) -> None:
    """They leave cache-*.arrow in a folder of `save_to_disk`: the rows again, so that each is there twice, or their order."""
    data = hub_library.Dataset.from_dict(
        {"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
    )
    data.save_to_disk(str(tmp_path / "saved"))
    loaded = hub_library.load_from_disk(str(tmp_path / "saved"))
    if call == "map":
        loaded.map(lambda row: {"text": row["text"].upper()}, load_from_cache_file=False)
    else:
        loaded.shuffle(seed=0)
    assert list((tmp_path / "saved").glob("cache-*.arrow"))
    if not has_state:
        (tmp_path / "saved" / "state.json").unlink()
    columns = {"text": "text", "label": "label"}
    listing = list_samples(dataset(source="hub", repo="me/saved", path=str(tmp_path / "saved"), columns=columns))
    assert [listing.read(index) for index in range(len(listing.items))] == [f"text {number}" for number in range(20)]


def test_a_saved_data_set_without_a_file_that_it_lists_is_refused(tmp_path: Path) -> None:
    data = hub_library.Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 0, 1]})
    data.save_to_disk(str(tmp_path), num_shards=2)
    columns = {"text": "text", "label": "label"}
    config = dataset(source="hub", repo="me/saved", path=str(tmp_path), columns=columns)
    (tmp_path / "data-00000-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="data-00000-of-00002.arrow is not there, though state.json lists it"):
        list_samples(config)
    (tmp_path / "state.json").unlink()
    (tmp_path / "data-00001-of-00002.arrow").rename(tmp_path / "cache-0123.arrow")
    with pytest.raises(InputError, match="no Parquet or Arrow files there"):
        list_samples(config)
