"""The model hub: an export is pushed to a repository, and a student is loaded from one.

The hub's own client finds the token: HF_TOKEN, or `hf auth login`. Neither a recipe nor an argument holds it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aft_ray.export.replacement import RECORD
from aft_ray.models.hub_connection import answers, is_offline
from aft_ray.models.model_files import check_connection, repository
from aft_ray.recipe.errors import InputError, faults_of, in_a_line
from aft_ray.recipe.json_files import json_or_none
from aft_ray.recipe.printable import tell
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace

SCHEME = "hf-hub:"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
CHANGED_MEANWHILE = (409, 412)
"""The hub's status when another commit came first."""


def check_push(name: str) -> None:
    """Raises InputError, one line per fault, if nothing can be pushed to the repository: asked before work begins."""
    faults = faults_of(lambda: _check_name(name), _check_token, _check_reached)
    if faults:
        raise InputError(faults)


def push(export: Directory, name: str, *, public: bool) -> str:
    """Makes the repository hold the export, in one commit, and returns its URL. A new repository is private unless `public`.

    A file there that `aft-ray export` did not write, or that was changed since, is not replaced: InputError names it.
    Files of an earlier export that this one lacks are deleted. All other files stay.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, files = HfApi(), _files(export)
    with _asked(name, export):
        url = str(api.create_repo(name, private=not public, exist_ok=True))
        found = api.model_info(name, files_metadata=True)
        there = {file.rfilename: file for file in found.siblings or ()}
        recorded = _recorded(name, found.sha) if RECORD in there else {}
        digests = {file: _digest(name, there[file], found.sha) for file in there if file in files or file in recorded}
        _check_own(name, digests, recorded, files)
        stale = [file for file, digest in digests.items() if file not in files and digest == recorded[file]]
        kind = "private" if found.private else "public"
        tell(f"uploading {', '.join(sorted(files))} to {url}, which is {kind} ...")
        if stale:
            tell(f"deleting {', '.join(stale)} there, of the export of before ...")
        api.create_commit(
            name,
            [
                *(CommitOperationAdd(file, _content(export, file)) for file in sorted(files)),
                *(CommitOperationDelete(file) for file in stale),
            ],
            commit_message="Student exported by aft-ray",
            parent_commit=found.sha,
        )
    return url


def downloaded(place: str, names: tuple[str, ...]) -> Directory:
    """The folder of the hub's cache with the files `names` of `hf-hub:REPOSITORY[@REVISION]`.

    The newest revision if the hub answers, else the one in the cache. Raises InputError if neither has it.
    """
    from huggingface_hub import snapshot_download

    files = repository(place.removeprefix(SCHEME))
    try:
        folder = snapshot_download(
            files.name,
            revision=files.revision,
            allow_patterns=list(names),
            local_files_only=is_offline() or not answers(),
        )
    except Exception as error:  # each version of the hub's client has network errors of its own
        raise files.out_of_reach(error) from error
    return Workspace.at(folder)


def usage_on_hub(usage: str, name: str) -> str:
    """The lines of Python that load an export, for a reader of the repository's page."""
    usage = re.sub(r"  # or .*, once it is .*", "", usage)
    in_files = re.sub(r'"DIRECTORY/([^"]+)"', rf'hf_hub_download("{name}", "\1")', usage)
    needed = "from huggingface_hub import hf_hub_download\n" if in_files != usage else ""
    placed = in_files.replace("local-dir:DIRECTORY", f"{SCHEME}{name}")
    own = "load_student(" in placed
    return needed + placed.replace('"DIRECTORY"', f'"{SCHEME if own else ""}{name}"')


def _check_name(name: str) -> None:
    if not REPOSITORY.fullmatch(name):
        raise InputError(f"--push-to-hub: '{name}' must have the form ORGANISATION/NAME or USER/NAME.")


def _check_token() -> None:
    from huggingface_hub import get_token

    if not get_token():
        raise InputError("--push-to-hub needs a token that may write: set HF_TOKEN, or run 'hf auth login'.")


def _check_reached() -> None:
    from huggingface_hub import constants

    if is_offline():
        raise InputError("--push-to-hub needs the model hub: unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.")
    try:
        check_connection()
    except ConnectionError as error:
        raise InputError(
            f"--push-to-hub: {constants.ENDPOINT}: {error}. Connect to a network, or set HF_ENDPOINT."
        ) from error


def _check_own(name: str, there: Mapping[str, str], recorded: Mapping[str, str], files: Mapping[str, str]) -> None:
    """there, recorded, files: hashes by name, in the repository, by its own record, and of the export."""
    foreign = [
        file for file, digest in there.items() if file in files and digest not in (recorded.get(file), files[file])
    ]
    if RECORD in foreign and recorded:
        foreign.remove(RECORD)  # the record cannot hold its own hash
    if foreign:
        way_out = "Rename or delete it there, or push to another repository."
        raise InputError(
            [f"{name} holds {file}, which is not as 'aft-ray export' wrote it. {way_out}" for file in foreign]
        )


@contextmanager
def _asked(name: str, export: Directory) -> Iterator[None]:
    """Turns the client's errors into one line. The export stays."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each version of the hub's client has network errors of its own
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = in_a_line(error)
        way_out = "Run the same command again."
        if status in (401, 403):
            way_out = "Set HF_TOKEN to a token that may write there."
        elif status in CHANGED_MEANWHILE:
            way_out = "Somebody changed it meanwhile. Run the same command again."
        raise InputError(f"{name} does not take the export in {export}: {reason}. {way_out}") from error


def _files(export: Directory) -> dict[str, str]:
    """The hash of every file of an export."""
    content = export.read(RECORD)
    listed: dict[str, str] = (json_or_none(content) or {})["files"]
    return {**listed, RECORD: hashlib.sha256(content).hexdigest()}


def _content(export: Directory, name: str) -> str | bytes:
    return f"{export}/{name}" if export.is_local else export.read(name)


def _recorded(name: str, commit: str | None) -> dict[str, str]:
    """Hashes of the files that an earlier export wrote to the repository, by name."""
    from huggingface_hub import hf_hub_download

    found = json_or_none(Path(hf_hub_download(name, RECORD, revision=commit)).read_bytes())
    files = found.get("files") if isinstance(found, dict) else None
    return files if isinstance(files, dict) else {}


def _digest(name: str, file: Any, commit: str | None) -> str:
    """SHA-256 of a file of the repository. The hub knows a large file's; small ones are read."""
    from huggingface_hub import hf_hub_download

    if file.lfs:
        return str(file.lfs.sha256)
    return hashlib.sha256(Path(hf_hub_download(name, file.rfilename, revision=commit)).read_bytes()).hexdigest()
