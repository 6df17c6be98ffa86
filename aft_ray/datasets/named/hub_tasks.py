"""The paper's tasks as the hub has them: repository, columns, splits, prompt. A recipe's own keys go before these.

"test" is what the paper tested on; for GLUE and BoolQ that is the public validation split. Validation is held out of
train, also where the data set has a validation split of its own.
"""

from __future__ import annotations

from typing import Any

from aft_ray.datasets.named.hub_task import HubTask
from aft_ray.datasets.sources.hub import CONVERTED

IMAGE = {"image": "image"}

IMAGES = (
    HubTask(
        name="cifar10",
        repo="uoft-cs/cifar10",
        subset="plain_text",
        columns={"image": "img"},
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        sizes=(50_000, 10_000),
        licence="none stated",
    ),
    HubTask(
        name="cifar100",
        repo="uoft-cs/cifar100",
        subset="cifar100",
        columns={"image": "img", "label": "fine_label"},
        classes=100,
        sizes=(50_000, 10_000),
        licence="none stated",
    ),
    HubTask(
        name="flowers102",
        repo="dpdl-benchmark/oxford_flowers102",
        columns=IMAGE,
        classes=102,
        sizes=(1_020, 6_149),
        licence="none stated",
    ),
    HubTask(
        name="oxford_pets",
        repo="timm/oxford-iiit-pet",
        columns=IMAGE,
        classes=37,
        sizes=(3_680, 3_669),
        licence="CC-BY-SA-4.0",
    ),
    HubTask(
        name="fgvc_aircraft",
        repo="HuggingFaceM4/FGVC-Aircraft",
        revision=CONVERTED,
        columns={"image": "image", "label": "variant"},
        splits={"train": ("train", "validation"), "test": "test"},
        classes=100,
        sizes=(6_667, 3_333),
        licence="research only",
    ),
    HubTask(
        name="dtd",
        repo="HuggingFaceM4/DTD_Describable-Textures-Dataset",
        subset="partition_1",
        revision=CONVERTED,
        columns=IMAGE,
        classes=47,
        sizes=(1_880, 1_880),
        licence="research only",
    ),
    HubTask(
        name="food101",
        repo="ethz/food101",
        columns=IMAGE,
        splits={"train": "train", "test": "validation"},
        classes=101,
        sizes=(75_750, 25_250),
        licence="unknown",
    ),
)

GLUE: dict[str, Any] = {
    "repo": "nyu-mll/glue",
    "splits": {"train": "train", "test": "validation"},
    "truncation_side": "left",
    "licence": "that of its source",
}
ENTAILMENT = ("entailment", "neutral", "contradiction")
MNLI: dict[str, Any] = {
    **GLUE,
    "subset": "mnli",
    "columns": {"text": ("premise", "hypothesis")},
    "prompt": "Premise: {premise}\nHypothesis: {hypothesis}\nDoes the premise entail the hypothesis? Answer: ",
    "classes": ENTAILMENT,
}

TEXTS = (
    HubTask(
        name="imdb",
        repo="stanfordnlp/imdb",
        subset="plain_text",
        columns={"text": "text"},
        prompt="{text} Overall, the sentiment of my review is",
        reference_prompt="{text}Overall, the sentiment of my review is",
        truncation_side="left",
        classes=("neg", "pos"),
        sizes=(25_000, 25_000),
        licence="other",
    ),
    HubTask(
        name="boolq",
        repo="aps/super_glue",
        subset="boolq",
        columns={"text": ("question", "passage")},
        prompt="Question: {question}\nReference: {passage}\nAnswer: ",
        splits={"train": "train", "test": "validation"},
        truncation_side="left",
        classes=("False", "True"),
        sizes=(9_427, 3_270),
        licence="CC-BY-SA-3.0",
    ),
    HubTask(
        name="mnli",
        sizes=(392_702, 9_815),
        **{**MNLI, "splits": {"train": "train", "test": "validation_matched"}},
    ),
    HubTask(
        name="mnli_mismatched",
        sizes=(392_702, 9_832),
        **{**MNLI, "splits": {"train": "train", "test": "validation_mismatched"}},
    ),
    HubTask(
        name="mrpc",
        subset="mrpc",
        columns={"text": ("sentence1", "sentence2")},
        prompt="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nIs Sentence 1 equivalent to Sentence 2? Answer: ",
        classes=("not_equivalent", "equivalent"),
        sizes=(3_668, 408),
        **GLUE,
    ),
    HubTask(
        name="sst2",
        subset="sst2",
        columns={"text": "sentence"},
        prompt='Review: "{sentence}"\nSentiment: ',
        classes=("negative", "positive"),
        sizes=(67_349, 872),
        **GLUE,
    ),
    HubTask(
        name="cola",
        subset="cola",
        columns={"text": "sentence"},
        prompt='Is the sentence "{sentence}" grammatical? Answer: ',
        classes=("unacceptable", "acceptable"),
        sizes=(8_551, 1_043),
        **GLUE,
    ),
    HubTask(
        name="qnli",
        subset="qnli",
        columns={"text": ("question", "sentence")},
        prompt="Question: {question}\nSentence: {sentence}\nDoes the sentence answer the question? Answer: ",
        reference_side="right",  # which can cut the question off the end
        classes=("entailment", "not_entailment"),
        sizes=(104_743, 5_463),
        **GLUE,
    ),
    HubTask(
        name="rte",
        subset="rte",
        columns={"text": ("sentence1", "sentence2")},
        prompt="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDoes Sentence 1 entail Sentence 2? Answer: ",
        classes=("entailment", "not_entailment"),
        sizes=(2_490, 277),
        **GLUE,
    ),
    HubTask(
        name="qqp",
        subset="qqp",
        columns={"text": ("question1", "question2")},
        prompt="Question 1: {question1}\nQuestion 2: {question2}\nAre Question 1 and Question 2 equivalent? Answer: ",
        classes=("not_duplicate", "duplicate"),
        sizes=(363_846, 40_430),
        **GLUE,
    ),
    HubTask(
        name="wnli",
        subset="wnli",
        columns={"text": ("sentence1", "sentence2")},
        prompt="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDoes Sentence 1 entail Sentence 2? Answer: ",
        classes=("not_entailment", "entailment"),
        sizes=(635, 71),
        **GLUE,
    ),
)

PAIRS = (
    HubTask(
        name="snli_ve",
        repo="Multimodal-Fatima/SNLI-VE_train",
        columns={"image": "image", "text": "hypothesis", "group": "filename"},
        splits={"train": "train", "test": "Multimodal-Fatima/SNLI-VE_test:test"},
        classes=ENTAILMENT,
        sizes=(529_527, 17_901),
        pictures=(29_783, 1_000),
        licence="none stated",
    ),
)
