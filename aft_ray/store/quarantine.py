"""Samples that cannot be used: they are quarantined, each with a reason, up to an allowed number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image, UnidentifiedImageError

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.printable import counted
from aft_ray.recipe.secrets import redacted

UNREADABLE = (Image.DecompressionBombError, MemoryError, OSError, SyntaxError, ValueError)
"""Errors of reading a file and of decoding a picture with Pillow."""
LISTED = 100
FEW = 5
NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""The parts of a reason that differ from sample to sample."""


def quarantined_sample(sample_id: str, error: BaseException) -> dict[str, str]:
    """The id and the reason in one line, as manifests list them. An object store's outage, no fault of the sample, is raised."""
    if isinstance(error, ObjectStoreError):
        raise error
    if isinstance(error, UnidentifiedImageError):
        reason = "it is not a picture"
    elif isinstance(error, MemoryError):
        reason = "it takes more memory than there is"
    else:
        reason = redacted(" ".join(str(error).split())).rstrip(".") or type(error).__name__
    return {"sample_id": sample_id, "reason": reason}


def check_quarantined(quarantined: Sequence[Mapping[str, str]], allowed: int) -> None:
    """Raises InputError, one line per quarantined sample, if they are more than `allowed`."""
    if len(quarantined) <= allowed:
        return
    lines = [line for samples in _by_kind(quarantined) for line in _told(samples)]
    if len(lines) > LISTED:
        lines[LISTED:] = [f"... and {len(lines) - LISTED} more faults."]
    lines.append(
        f"{counted(len(quarantined), 'sample')} quarantined, {allowed} allowed. Mend or remove them and run"
        " 'aft-ray prepare --overwrite', or allow more with dataset.max_bad_samples."
    )
    raise InputError(lines)


def _by_kind(quarantined: Sequence[Mapping[str, str]]) -> Iterable[list[Mapping[str, str]]]:
    """Samples whose reasons differ by names and numbers alone."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for sample in quarantined:
        found.setdefault(NAMES.sub("", sample["reason"]), []).append(sample)
    return found.values()


def _told(samples: Sequence[Mapping[str, str]]) -> list[str]:
    """One line for a few samples of one kind each; one for all where they are many."""
    if len(samples) <= FEW:
        return [f"Sample {sample['sample_id']} cannot be read: {sample['reason']}." for sample in samples]
    more = len(samples) - 1
    return [f"Sample {samples[0]['sample_id']} and {more:,} more cannot be read: {samples[0]['reason']}."]
