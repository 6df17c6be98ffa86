"""A model hub on this machine: the requests of the hub's client that a push and a download make."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34
LARGE = (".safetensors", ".onnx")


@dataclass
class Hub:
    """url: HF_ENDPOINT. repositories: the files of each commit, the newest last. visibility: as a repository was made."""

    url: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def files(self, repository: str) -> dict[str, bytes]:
        return self.repositories[repository][-1]

    def add(self, repository: str, **files: bytes) -> None:
        """A commit of somebody else."""
        before = self.repositories.setdefault(repository, [{".gitattributes": b""}])
        before.append(before[-1] | {name.replace("_", "."): content for name, content in files.items()})


def commit_id(number: int) -> str:
    return f"{number:040x}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        path, body = self._asked()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid token"}, status=401)
        if path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body)["objects"])
        repository, verb = _parts(path)
        if verb == "preupload":
            asked = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in asked]
            return self._send({"files": modes})
        assert verb == "commit", path
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        path, body = self._asked()
        self.hub.objects[path.rpartition("/")[2]] = body
        self._send({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _ = self._asked()
        if not path.startswith("/api/"):
            repository, _, place = path[1:].partition("/resolve/")
            revision, _, name = place.partition("/")
            return self._file(repository, revision, name)
        repository, verb = _parts(path)
        if repository not in self.hub.repositories:
            return self._send({"error": "Repository not found"}, status=404, code="RepoNotFound")
        revision, *folder = path.split("/")[6:] or ["main"]
        if folder:  # an export has none
            return self._send({"error": "Entry not found"}, status=404, code="EntryNotFound")
        number, files = self._at(repository, revision)
        listed = [_listed(name, content) for name, content in files.items()]
        if verb == "tree":
            return self._send([{"type": "file", "path": entry["rfilename"], **entry} for entry in listed])
        private = self.hub.visibility.get(repository) == "private"
        self._send({"id": repository, "sha": commit_id(number), "private": private, "siblings": listed})

    def _asked(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path, self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _at(self, repository: str, revision: str) -> tuple[int, dict[str, bytes]]:
        commits = self.hub.repositories[repository]
        number = len(commits) - 1 if revision == "main" else int(revision, 16)
        return number, commits[number]

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            return self._send({"error": "exists", "url": f"{self.hub.url}/{name}"}, status=409)
        self.hub.repositories[name] = [{".gitattributes": b""}]
        self.hub.visibility[name] = asked.get("visibility") or ("private" if asked.get("private") else "public")
        self._send({"url": f"{self.hub.url}/{name}"})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        uploads = {"upload": {"href": f"{self.hub.url}/objects/{{oid}}"}}
        answers = [
            {**item, "actions": json.loads(json.dumps(uploads).replace("{oid}", item["oid"]))} for item in objects
        ]
        self._send({"transfer": "basic", "objects": answers})

    def _commit(self, repository: str, operations: list[dict[str, Any]]) -> None:
        number, files = self._at(repository, "main")
        if operations[0]["value"].get("parentCommit") != commit_id(number):
            return self._send({"error": "A commit has happened since."}, status=412)
        files = dict(files)
        for operation in operations[1:]:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        self.hub.repositories[repository].append(files)
        self._send({"commitUrl": f"{self.hub.url}/{repository}/commit/x", "commitOid": commit_id(number + 1)})

    def _file(self, repository: str, revision: str, name: str) -> None:
        if repository not in self.hub.repositories:
            return self._send({"error": "Repository not found"}, status=404, code="RepoNotFound")
        number, files = self._at(repository, revision)
        if name not in files:
            return self._send({"error": "Entry not found"}, status=404, code="EntryNotFound")
        content = files[name]
        self._answer(content, 200, {"X-Repo-Commit": commit_id(number), "ETag": f'"{_etag(name, content)}"'})

    def _send(self, value: Any, status: int = 200, code: str = "") -> None:
        headers = {"Content-Type": "application/json"} | ({"X-Error-Code": code} if code else {})
        self._answer(json.dumps(value).encode(), status, headers)

    def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _parts(path: str) -> tuple[str, str]:
    """The repository, and the verb after it, of /api/models/ORGANISATION/NAME/VERB/..."""
    parts = path.split("/")
    return "/".join(parts[3:5]), parts[5] if len(parts) > 5 else ""


def _mode(name: str) -> str:
    return "lfs" if name.endswith(LARGE) else "regular"


def _etag(name: str, content: bytes) -> str:
    return (
        hashlib.sha256(content) if name.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(content) + content)
    ).hexdigest()


def _listed(name: str, content: bytes) -> dict[str, Any]:
    size, etag = len(content), _etag(name, content)
    large = {"lfs": {"size": size, "sha256": etag, "oid": etag, "pointerSize": 134}} if name.endswith(LARGE) else {}
    return {"rfilename": name, "size": size, "blobId": etag[:40], "oid": etag[:40], **large}


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub without repositories, for as long as the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
