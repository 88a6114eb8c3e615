"""The part of the Hugging Face Hub that downloads speak to, on this machine's loopback, with faults to switch on."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from helpers import hub_uploads
from helpers.hub_uploads import LARGE as LARGE
from huggingface_hub import constants


@dataclass
class Request:
    method: str
    path: str
    start: int | None = None  # of the range that was asked for
    token: str = ""


@dataclass
class Repository:
    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": "1" * 40})  # branch -> commit
    gated: bool = False
    private: bool = False
    messages: list[str] = field(default_factory=list)  # of the commits


@dataclass
class Hub:
    """Repositories, faults and a log of what was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    cut: list[int] = field(default_factory=list)  # the next answers break off after so many bytes, one each
    always_cut: int | None = None  # and all after them
    damage: int | None = None  # the byte that arrives flipped
    short: int = 0  # bytes that large files have fewer than was announced
    status: int = 200  # that of every answer, if another
    stored: dict[str, bytes] = field(default_factory=dict)  # what was uploaded, by its sha256
    tokens: set[str] = field(default_factory=set)  # those that uploads need one of; none needs any
    upload_status: int = 200  # that of every answer to what is no download, if another
    plain: bool = False  # a web server that is no hub: only the files, without the headers of the protocol

    def publish(self, name: str, files: dict[str, bytes], **more: Any) -> Repository:
        self.repositories[name] = Repository(files, **more)
        return self.repositories[name]

    def asked(self, method: str) -> list[str]:
        """The files asked for by this method, in order."""
        return [request.path for request in self.requests if request.method == method]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        hub = self.hub
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = (
            None
            if hub.plain
            else hub_uploads.answer(hub, self.command, self.path, body, self.headers.get("Authorization", ""))
        )
        if told is not None:
            return self._say(*told)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else None
        stored = re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", self.path)
        asked = stored or re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if asked is None:  # the client's other business
            return self._refuse(404)
        file = asked[asked.lastindex or 0]
        hub.requests.append(Request(self.command, file, start, self.headers.get("Authorization", "")))
        repository = hub.repositories.get(asked[1])
        if hub.status != 200:
            return self._refuse(hub.status)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if repository.gated and not stored:
            return self._refuse(401, "GatedRepo")
        if stored:
            content = repository.files[file]
            return self._send(content[: len(content) - hub.short], {}, start)
        commits = repository.revisions
        commit = commits.get(asked[2], asked[2] if asked[2] in commits.values() else "")
        if not commit:
            return self._refuse(404, "RevisionNotFound")
        if file not in repository.files:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        content = repository.files[file]
        if hub.plain:
            return self._send(content, {}, start)
        if len(content) < LARGE:
            tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's
            return self._send(content, {"X-Repo-Commit": commit, "ETag": f'"{tag}"'}, start)
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Location": f"{hub.endpoint.replace('127.0.0.1', 'localhost')}/cdn/{asked[1]}/{file}",
            "Content-Length": "0",
        }
        return self._head(302, headers)

    def _say(self, status: int, what: Any) -> None:
        content = json.dumps(what).encode()
        code = {"X-Error-Code": "RepoNotFound"} if status == 404 and "Repository" in str(what) else {}
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(content))} | code)
        self.wfile.write(content)

    def _refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0"} | ({"X-Error-Code": code} if code else {}) | (headers or {}))

    def _send(self, content: bytes, headers: dict[str, str], start: int | None) -> None:
        hub = self.hub
        headers = headers | {"Accept-Ranges": "bytes", "Content-Length": str(len(content) - (start or 0))}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(200 if start is None else 206, headers)
        if self.command == "HEAD":
            return
        if hub.damage is not None:
            flipped = bytearray(content)
            flipped[hub.damage] ^= 1
            content = bytes(flipped)
        content = content[start or 0 :]
        cut = hub.cut.pop(0) if hub.cut else hub.always_cut
        self.wfile.write(content[:cut])
        self.close_connection = cut is not None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the settings that huggingface_hub reads from the environment when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose servers are others
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which the client in this process talks to."""
    from fastvit.weights import hub_file

    monkeypatch.setattr(hub_file, "EXPECTED_SIZES", {})  # tests' files are small
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.01)))  # between the client's own retries
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    with serving(Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()
