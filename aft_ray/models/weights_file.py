"""One weights file: recognising it by its bytes, and reading it without executing anything in it."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from aft_ray.recipe.errors import InputError

HEAD = 1024
LONGEST_HEADER = 100 << 20
"""Bytes that the safetensors library takes as a header."""
NO_WEIGHTS: dict[bytes, str] = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights. Run 'git lfs pull' where it was cloned",
    b"\x1f\x8b": "is a gzip archive. Unpack it and name the file inside",
    b"\xfd7zXZ": "is an xz archive. Unpack it and name the file inside",
    b"7z\xbc\xaf": "is a 7z archive. Unpack it and name the file inside",
    b"\x89HDF": "is an HDF5 file. Only safetensors and torch files are read",
    b"GGUF": "is a GGUF file. Only safetensors and torch files are read",
    b"\x93NUMPY": "is a NumPy array. Only safetensors and torch files are read",
    b"\x89PNG": "is a picture",
    b"\xff\xd8\xff": "is a picture",
}
"""First bytes of files that users mistake for weights, and the message for each."""
TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{9,}")


def check_weights_file(path: Path) -> None:
    """Raises InputError if the first and last bytes show that the file holds no weights or is cut off.

    The library that loads the file checks other kinds.
    """
    if path.is_dir():
        raise InputError(f"Weights file {path} is a directory. Name the file inside.")
    if not path.is_file():
        raise InputError(f"Weights file {path} is not a regular file.")
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    fault = _fault(path, head, path.stat().st_size)
    if fault:
        raise InputError(f"Weights file {path} {fault}.")


def _fault(path: Path, head: bytes, size: int) -> str | None:
    if not head:
        return "is empty"
    for start, reason in NO_WEIGHTS.items():
        if head.startswith(start):
            return reason
    if head[257:262] == b"ustar":
        return "is a tar archive. Unpack it and name the file inside"
    if re.match(rb"\s*<(!doctype|html|\?xml|head|body)", head, re.IGNORECASE):
        return "is a web page, perhaps an error message. Download it again"
    if head.startswith(b"PK"):
        return _zip_fault(path)
    if _is_safetensors(head):
        return _safetensors_fault(path, size)
    return "is a text" if TEXT.fullmatch(head) else None


def _zip_fault(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return "is cut off: its table of contents is missing. Copy it again"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is damaged: its table of contents cannot be read. Copy it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript program, which would have to be executed. Save its state_dict()"
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "is a zip archive without weights of torch. Unpack it and name the file inside"
    return None


def _is_safetensors(head: bytes) -> bool:
    """safetensors: eight bytes of a length, then a header in JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def _safetensors_fault(path: Path, size: int) -> str | None:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length)
    try:
        entries = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "has a damaged header. Copy it again" if len(header) == length else "is cut off. Copy it again"
    if size < 8 + length + end:
        return f"is cut off: {size} of {8 + length + end} bytes are there. Copy it again"
    return None


def read_weights_file(path: Path) -> Any:
    """The file's content, with tensors on the CPU. Raises InputError if reading would execute code, or the file is damaged.

    timm and many training scripts save their arguments beside the weights; an argparse.Namespace holds values only.
    """
    import argparse

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with path.open("rb") as stream:
        head = stream.read(HEAD)
    try:
        if _is_safetensors(head):
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)  # torch would judge a path by its suffix
    except (pickle.UnpicklingError, RuntimeError) as error:
        if "weights_only" in str(error) or isinstance(error, pickle.UnpicklingError):
            raise InputError(pickled(str(path), str(error))) from error
        raise InputError(f"Weights file {path} is damaged: {_reason(error)}. Copy it again.") from error
    except (EOFError, SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"Weights file {path} is damaged: {_reason(error)}. Copy it again.") from error


def pickled(owner: str, error: str) -> str:
    """The line for objects that torch does not read. owner: the file or the model. error: torch's own text."""
    found = re.search(r"GLOBAL ([\w.]+) was not an allowed", error)
    which = f", not {found[1]}" if found else ""
    return (
        f"the weights of {owner} are pickled objects, which could execute code; only tensors are read{which}"
        " (weights_only). Use a safetensors file."
    )


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def library_fault(error: Exception, model: str, way_out: str) -> str | None:
    """One line for a library's error about missing, damaged, unsafe or unfit files; None for any other error.

    way_out: ends the advice for a file that cannot be fetched.
    """
    from safetensors import SafetensorError

    if isinstance(error, OSError):
        return (
            f"the model {model} cannot be loaded: {_reason(error)}. Where there is no network, fill the model hub's cache"
            f" beforehand, {way_out}."
        )
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return pickled(model, str(error))
    if "in loading state_dict" in str(error):
        return f"the weights of {model} do not fit the model: {' '.join(str(error).split())[:200]}"
    if isinstance(error, (EOFError, SafetensorError)) or "PytorchStreamReader" in str(error):
        return f"the weights of {model} are damaged: {_reason(error)}. Copy or download them again."
    return None
