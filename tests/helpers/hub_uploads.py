"""The part of the Hugging Face Hub that uploads speak to: repositories made, files sent, commits."""

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helpers.hub_server import Hub, Repository

LARGE = 1000  # bytes; larger files are in LFS, known by their sha256 and served by another host, as on the hub
Answer = tuple[int, dict[str, Any]]


def answer(hub: "Hub", method: str, path: str, body: bytes, token: str) -> Answer | None:
    """(status, what to say) to a request of the API; None if it is not one."""
    path = path.partition("?")[0]
    if method == "PUT" and (found := re.fullmatch(r"/lfs/([^/]+/[^/]+)/([0-9a-f]{64})", path)):
        assert hashlib.sha256(body).hexdigest() == found[2]
        hub.stored[found[2]] = body
        return 200, {}
    if not path.startswith("/api/") and not path.endswith("/info/lfs/objects/batch"):
        return None
    if hub.upload_status != 200:
        return hub.upload_status, {"error": "as the test asks"}
    if hub.tokens and token.removeprefix("Bearer ") not in hub.tokens:
        return 401, {"error": "Invalid username or password."}
    if path == "/api/whoami-v2":
        return 200, {"name": "user", "type": "user", "orgs": []}
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    return _of_repository(hub, path, body)


def _create(hub: "Hub", asked: dict[str, Any]) -> Answer:
    name = f"{asked.get('organization') or 'user'}/{asked['name']}"
    url = {"url": f"{hub.endpoint}/{name}", "name": name, "id": name}
    if name in hub.repositories:
        return 409, url | {"error": "You already created this model repo"}
    hub.publish(name, {}, private=asked.get("private") or asked.get("visibility") == "private")
    return 200, url


def _of_repository(hub: "Hub", path: str, body: bytes) -> Answer:
    found = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(\w+)/([^/]+))?", path)
    found = found or re.fullmatch(r"/([^/]+/[^/]+)\.git/info/(lfs)/objects/(batch)", path)
    if not found or found[1] not in hub.repositories:
        return 404, {"error": "Repository not found"}
    repository, (_, what, revision) = hub.repositories[found[1]], found.groups()
    if what in (None, "revision"):
        commit = repository.revisions.get(revision or "main")
        siblings = [{"rfilename": name} for name in repository.files]
        info = {"id": found[1], "sha": commit, "siblings": siblings, "private": repository.private}
        return (200, info) if commit else (404, {"error": "no revision"})
    if what == "tree":
        files = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in repository.files.items()]
        return 200, files  # type: ignore[return-value]
    if what == "branch":
        repository.revisions[revision] = repository.revisions["main"]
        return 200, {}
    if what == "preupload":
        return 200, {"files": [_mode(each["path"], each["size"]) for each in json.loads(body)["files"]]}
    if what == "lfs":
        objects = [_upload(hub, found[1], each) for each in json.loads(body)["objects"]]
        return 200, {"transfer": "basic", "objects": objects}
    assert what == "commit"
    return _commit(hub, repository, found[1], revision, body)


def _mode(name: str, size: int) -> dict[str, Any]:
    large = size >= LARGE and not name.endswith((".md", ".json"))
    return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def _upload(hub: "Hub", name: str, what: dict[str, Any]) -> dict[str, Any]:
    return what | {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{name}/{what['oid']}", "header": {}}}}


def _commit(hub: "Hub", repository: "Repository", name: str, revision: str, body: bytes) -> Answer:
    if revision not in repository.revisions:
        return 404, {"error": "Invalid rev id"}
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            repository.messages.append(value["summary"])
        elif line["key"] == "file":
            repository.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            repository.files[value["path"]] = hub.stored[value["oid"]]
    commit = hashlib.sha1(body).hexdigest()
    repository.revisions[revision] = commit
    url = f"{hub.endpoint}/{name}/commit/{commit}"
    return 200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None, "success": True}
