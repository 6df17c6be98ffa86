"""Samples that cannot be used: they are quarantined, each with a reason, up to an allowed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, UnidentifiedImageError

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.secrets import redacted

UNREADABLE = (Image.DecompressionBombError, MemoryError, OSError, SyntaxError, ValueError)
"""Errors of reading a file and of decoding a picture with Pillow."""
LISTED = 100


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
    lines = [f"Sample {sample['sample_id']} cannot be read: {sample['reason']}." for sample in quarantined[:LISTED]]
    if len(quarantined) > LISTED:
        lines.append(f"... and {len(quarantined) - LISTED} more samples.")
    lines.append(
        f"{len(quarantined)} samples quarantined, {allowed} allowed. Mend or remove them and run"
        " 'aft-ray prepare --overwrite', or allow more with dataset.max_bad_samples."
    )
    raise InputError(lines)
