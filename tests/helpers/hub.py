"""Tiny random checkpoints in the model hub's own file format, and a cache directory that holds them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

TEXTS = ["the cat sits", "stock market", "a much longer sentence about a dog that runs in the park", "cat"]
WORDS = sorted({word for text in TEXTS for word in text.split()})

# One row per family: special tokens in the order of their ids, the template, roles of the tokens.
TOKENIZERS: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "bert": (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        "[CLS] $A [SEP]",
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    ),
    "roberta": (
        ["<s>", "<pad>", "</s>", "<unk>"],
        "<s> $A </s>",
        {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"},
    ),
    "t5": (
        ["<pad>", "</s>", "<unk>"],
        "$A </s>",
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "gpt2": (["<|endoftext|>"], "$A", {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}),
    "llama": (
        ["<unk>", "<s>", "</s>"],
        "<s> $A",
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    ),
    "siglip": (
        ["<unk>", "</s>"],
        "$A </s>",
        {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
}
CLIP_TOKENS = {"bos_token": "<|start|>", "eos_token": "<|end|>", "pad_token": "<|end|>", "unk_token": "<|end|>"}


def tokenizer(family: str, max_length: int = 16) -> Any:
    """A word tokenizer with the special tokens of `family`."""
    like = {"distilbert": "bert", "xlm-roberta": "roberta", "flan-t5": "t5", "mistral": "llama", "qwen2": "llama"}.get(
        family, family
    )
    specials, template, roles = TOKENIZERS.get(like, ([], "<|start|> $A <|end|>", CLIP_TOKENS))
    words = [*specials, *WORDS] if specials else [*WORDS, "<|start|>", "<|end|>"]  # CLIP's end has the highest id
    ids = {word: index for index, word in enumerate(words)}
    body = Tokenizer(WordLevel(ids, unk_token=roles["unk_token"]))
    body.pre_tokenizer = Whitespace()
    named = [(token, ids[token]) for token in template.split() if token != "$A"]
    body.post_processor = TemplateProcessing(single=template, special_tokens=named)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=body, model_max_length=max_length, **roles)


def text_config(family: str) -> Any:
    vocabulary = len(tokenizer(family))
    small = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"intermediate_size": 48, "max_position_embeddings": 16}
    if family == "bert":
        return transformers.BertConfig(**small)
    if family == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocabulary, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=16
        )
    if family in ("roberta", "xlm-roberta"):
        kind = transformers.RobertaConfig if family == "roberta" else transformers.XLMRobertaConfig
        return kind(**small | {"max_position_embeddings": 18}, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    if family in ("t5", "flan-t5"):
        own = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if family == "flan-t5" else {}
        small = {"vocab_size": vocabulary, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
        return transformers.T5Config(**small, decoder_start_token_id=0, **own)
    if family == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0
        )
    kind = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config}
    return kind[family](**small, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)


def image_config(family: str) -> Any:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    if family == "vit":
        return transformers.ViTConfig(**small, intermediate_size=48)
    if family == "dinov2":
        return transformers.Dinov2Config(**small, mlp_ratio=2)
    text = {"vocab_size": len(tokenizer(family)), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"intermediate_size": 48, "max_position_embeddings": 16, "bos_token_id": len(WORDS)}
    vision = small | {"intermediate_size": 48}
    if family == "clip":
        text["eos_token_id"] = len(WORDS) + 1
        return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return transformers.SiglipConfig(text_config=text | {"eos_token_id": 1}, vision_config=vision)


def save_text_model(family: str, directory: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(text_config(family)).eval().save_pretrained(directory)
    tokenizer(family).save_pretrained(directory)
    return directory


def save_image_model(family: str, directory: Path, *, processor: dict[str, Any] | None = None) -> Path:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(image_config(family)).eval().save_pretrained(directory)
    if family in ("clip", "siglip"):
        tokenizer(family).save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(processor or PROCESSORS[family]))
    return directory


STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROPPED = {
    "do_resize": True,
    "size": {"shortest_edge": 37},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_convert_rgb": True,
    **STATISTICS,
}
SQUASHED = {"do_resize": True, "size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True}
PROCESSORS: dict[str, dict[str, Any]] = {
    "clip": CROPPED | {"image_processor_type": "CLIPImageProcessor"},
    "dinov2": CROPPED | {"image_processor_type": "BitImageProcessor"},
    "siglip": SQUASHED | {"image_processor_type": "SiglipImageProcessor", "resample": 3},
    "vit": {"size": 32, "feature_extractor_type": "ViTFeatureExtractor", "resample": 2},
}


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (self.file.touch, ())


def fill_cache(cache: Path, repository: str, directory: Path, *, commit: str = "c" * 40) -> None:
    """Lays the files of `directory` into the hub's cache directory, as a download would."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for file in (path for path in directory.rglob("*") if path.is_file()):
        content = file.read_bytes()
        large = file.suffix in (".safetensors", ".bin", ".model")
        name = hashlib.sha256(content) if large else hashlib.sha1(b"blob %d\0" % len(content) + content)
        blob = folder / "blobs" / name.hexdigest()
        link = folder / "snapshots" / commit / file.relative_to(directory)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
