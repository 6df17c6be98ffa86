"""`train.preset`: several keys of the section `train` by one name. A saved recipe has the keys, not the name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"optimizer": "adam", "schedule": "cosine", "weight_decay": 0.0, "augment": "none"},
    "finetune": {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-3,
        "weight_decay": 0.05,
        "layer_decay": 0.9,
        "warmup_steps": None,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
        "ema": 0.99,
        "augment": "light",
    },
    "from_scratch": {
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "weight_decay": 0.05,
        "warmup_steps": None,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
        "ema": 0.99,
        "augment": "strong",
    },
}
ABOUT = (
    "Several keys of this section by one name: `paper`, `finetune` for a pretrained student, `from_scratch`. Keys beside it"
    " replace its own."
)


def resolve_preset(content: dict[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Replaces `train.preset` by its keys, in place; keys of the recipe that stand beside it stay. Returns its faults.

    changes: the dotted keys that overrides have set. A preset among these replaces the recipe's keys, but no other override.
    """
    train = content.get("train")
    if not isinstance(train, dict) or "preset" not in train:
        return []
    name = train.pop("preset")
    if name is None:
        return []
    if not isinstance(name, str) or name not in PRESETS:
        return [f"train.preset must be one of {', '.join(PRESETS)}, got {name!r}."]
    replaces = "train.preset" in changes
    for key, value in PRESETS[name].items():
        if key not in train or (replaces and f"train.{key}" not in changes):
            train[key] = value
    return []
