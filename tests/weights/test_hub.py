"""Downloads, from a hub on this machine's loopback: the real client against the real protocol."""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from helpers.hub_server import LARGE, Hub
from huggingface_hub import constants

from fastvit import FastViTWarning, WeightsError
from fastvit.weights import catalog, hub_file
from fastvit.weights import hub as client
from fastvit.weights.catalog import CHECKPOINTS, Checkpoint, find
from fastvit.weights.hub import download, print_license
from fastvit.weights.hub_file import discard

ONE = CHECKPOINTS["fastvit_t8.apple_in1k"]  # in one file
TOWER = CHECKPOINTS["fastvithd.apple_fastvlm_7b"]  # in shards, with a language model
WEIGHTS = bytes(range(256)) * 1000
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _published(hub: Hub) -> None:
    hub.publish(ONE.repository, {"model.safetensors": WEIGHTS})


def stop(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the network were down: nobody listens there."""
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{nobody}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


def failure(checkpoint: Checkpoint = ONE) -> str:
    """The message of a download that fails, which is one line with the checkpoint's name and its repository."""
    with pytest.raises(WeightsError) as error:
        download(checkpoint)
    message = str(error.value)
    assert message.startswith(f"{checkpoint.name}: {checkpoint.repository}") and "\n" not in message
    return message


def leftovers(cache: Path) -> list[Path]:
    """The files in the cache that hold weights, or a part of them."""
    parts = ("blobs", "snapshots")
    return [file for file in cache.rglob("*") if file.is_file() and any(part in file.parts for part in parts)]


# Downloading


def test_the_first_file_that_the_repository_has_is_downloaded_once(hub: Hub, cache: Path) -> None:
    first = download(ONE)
    assert first.read_bytes() == WEIGHTS and first.name == "model.safetensors" and first.is_relative_to(cache)
    assert download(ONE) == first
    assert hub.asked("GET") == ["model.safetensors"]
    assert {request.path for request in hub.requests} == {"model.safetensors"}


def test_the_second_file_serves_where_the_first_is_not(hub: Hub) -> None:
    hub.publish(ONE.repository, {"pytorch_model.bin": WEIGHTS})
    assert download(ONE).name == "pytorch_model.bin"


def test_a_small_file_has_no_sha256_and_comes_as_well(hub: Hub) -> None:
    hub.publish(ONE.repository, {"model.safetensors": b"small"})
    assert download(ONE).read_bytes() == b"small"


def test_the_revision_asked_for_is_the_one_that_comes(hub: Hub) -> None:
    hub.publish(ONE.repository, {"model.safetensors": WEIGHTS}, revisions={"main": "1" * 40, "second": "2" * 40})
    assert download(replace(ONE, revision="second")).parent.name == "2" * 40
    assert download(replace(ONE, revision="2" * 40)).parent.name == "2" * 40
    assert download(ONE).parent.name == "1" * 40
    assert failure(replace(ONE, revision="third")).endswith("has no revision 'third'")


@pytest.mark.parametrize("how", ["offline", "down", "server error"])
def test_what_is_in_the_cache_needs_no_hub(how: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish(ONE.repository, {"pytorch_model.bin": WEIGHTS})  # the second of its files
    path = download(ONE)
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "down":
        stop(hub, monkeypatch)
    else:
        hub.status = 503
    hub.requests.clear()
    assert download(ONE) == path
    assert "GET" not in [request.method for request in hub.requests]


def test_endpoint_home_token_and_offline_mode_come_from_the_environment(hub: Hub, tmp_path: Path) -> None:
    other = CHECKPOINTS["fastvit_t12.apple_in1k"]
    script = f"""if True:
        from fastvit import WeightsError
        from fastvit.weights.catalog import CHECKPOINTS
        from fastvit.weights.hub import download
        print(download(CHECKPOINTS[{ONE.name!r}]))
        try:
            download(CHECKPOINTS[{other.name!r}])
        except WeightsError as error:
            print(error)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_of_this_test"}

    def run(**more: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", script], env=environment | more, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    path, error = run()
    assert Path(path).read_bytes() == WEIGHTS and Path(path).is_relative_to(tmp_path / "home")
    assert f"{other.repository} was not found at {hub.endpoint}" in error
    tokens = {request.method: request.token for request in hub.requests}
    assert tokens == {"HEAD": "Bearer hf_of_this_test", "GET": ""}  # no token for the other host that has the file
    hub.requests.clear()
    again, error = run(HF_HUB_OFFLINE="1")
    assert again == path and f"{other.name}: " in error and "HF_HUB_OFFLINE is set" in error
    assert not hub.requests


# Downloads that break


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what it forgets of a chunk that is not whole
    hub.cut = [1000, 500]
    assert download(ONE).read_bytes() == WEIGHTS
    assert [request.start for request in hub.requests if request.method == "GET"] == [None, 1000, 1500]


def test_a_connection_that_stays_broken_is_one_line_and_leaves_nothing(hub: Hub, cache: Path) -> None:
    hub.cut, hub.always_cut = [1000], 0
    assert "model.safetensors did not come through" in failure() and "try again" in failure()
    assert not [file for file in leftovers(cache) if not file.name.endswith(".incomplete")]
    hub.always_cut = None
    assert download(ONE).read_bytes() == WEIGHTS


def test_a_file_of_another_size_than_announced_is_not_kept(hub: Hub, cache: Path) -> None:
    hub.short = 1
    assert "model.safetensors did not come through" in failure()
    assert not [file for file in leftovers(cache) if not file.name.endswith(".incomplete")]


@pytest.mark.parametrize("byte", [0, len(WEIGHTS) // 2, -1])
def test_a_file_damaged_on_the_way_is_removed_and_comes_whole_the_next_time(byte: int, hub: Hub, cache: Path) -> None:
    hub.damage = byte
    right = hashlib.sha256(WEIGHTS).hexdigest()[:12]
    assert f"instead of {right}...) and removed: try again" in failure()
    assert leftovers(cache) == []
    hub.damage = None
    assert download(ONE).read_bytes() == WEIGHTS


def test_a_file_with_links_through_the_store_of_all_repositories_is_known_by_its_own_hash(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = huggingface_hub.hf_hub_download

    def stored(*arguments: str, **more: str) -> str:
        """What huggingface_hub 2 makes of files from Xet: the name in the store is another kind of hash."""
        path = Path(real(*arguments, **more))
        blob, store = path.resolve(), cache / "blobs" / "ab" / ("ab" * 32)
        store.parent.mkdir(parents=True, exist_ok=True)
        blob.rename(store)
        blob.symlink_to(os.path.relpath(store, blob.parent))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stored)
    hub.damage = 5
    assert "damaged on the way" in failure()
    assert leftovers(cache) == []
    hub.damage = None
    assert download(ONE).read_bytes() == WEIGHTS


def test_a_cache_without_links_serves_too(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.file_download, "are_symlinks_supported", lambda folder=None: False)
    path = download(ONE)
    assert not path.is_symlink() and path.read_bytes() == WEIGHTS
    discard(path)
    assert leftovers(cache) == []
    assert download(ONE).read_bytes() == WEIGHTS


def test_an_interrupt_passes_through(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **more: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(ONE)


# Refusals


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    hub.repositories.clear()
    assert f"not found at {hub.endpoint}/{ONE.repository}: if it is private, log in" in failure()


def test_a_repository_without_any_of_the_files(hub: Hub) -> None:
    hub.publish(ONE.repository, {"README.md": b"nothing here"})
    assert "has no model.safetensors and no pytorch_model.bin" in failure()
    assert list(dict.fromkeys(hub.asked("HEAD"))) == ["model.safetensors", "pytorch_model.bin"]


def test_a_gated_repository(hub: Hub) -> None:
    hub.repositories[ONE.repository].gated = True
    assert f"accept its terms at {hub.endpoint}/{ONE.repository}, then log in" in failure()


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "log in"), (403, "answered 403 to model.safetensors: log in"), (500, "answered 500"), (503, "try again")],
)
def test_a_hub_that_answers_with_an_error(status: int, advice: str, hub: Hub, cache: Path) -> None:
    hub.status = status
    assert advice in failure()
    assert leftovers(cache) == []


def test_a_hub_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(hub, monkeypatch)
    assert "http://127.0.0.1:9 did not give it" in failure()


def test_a_server_that_is_no_hub(hub: Hub) -> None:
    hub.plain = True
    assert f"{hub.endpoint} did not give it" in failure()


def test_offline_and_not_in_the_cache(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = failure()
    assert f"model.safetensors is not in the cache {cache}, and HF_HUB_OFFLINE is set: unset it" in message
    assert message.endswith("or take what is on this machine: fastvit_t8.cifar10")
    assert not hub.requests


def test_a_pinned_row_whose_newest_is_in_the_cache_is_named_with_the_branch(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(PINNED.repository, {"model.safetensors": WEIGHTS})
    huggingface_hub.hf_hub_download(PINNED.repository, "model.safetensors", cache_dir=constants.HF_HUB_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"take what is on this machine: {PINNED.name}@main or fastvit_t8.cifar10" in failure(PINNED)
    newest = find(f"{PINNED.name}@main")
    assert newest is not None and download(newest).read_bytes() == WEIGHTS


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client in this process talk to that address."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    huggingface_hub.close_session()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("how", ["down", "hangs", "error", "no TLS", "no name", "no proxy", "silent proxy"])
def test_without_a_network_it_is_one_line_within_five_seconds_that_names_what_is_here(
    how: str,
    hub: Hub,
    cache: Path,
    silent: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = CHECKPOINTS["fastvit_t12.apple_in1k"]
    hub.publish(here.repository, {"pytorch_model.bin": WEIGHTS})
    download(here)
    monkeypatch.undo()  # also what shortens the client's sleeps
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub_file, "SECONDS", 1.0)
    addresses = {"down": "http://127.0.0.1:9", "hangs": f"http://{silent}", "no name": "http://nowhere.invalid"}
    addresses["no TLS"] = hub.endpoint.replace("http", "https")
    if how == "error":
        hub.status = 500
    if "proxy" in how:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://{silent if how == 'silent proxy' else '127.0.0.1:9'}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
    point_at(addresses.get(how, hub.endpoint if how == "error" else "http://hub.example"), monkeypatch)
    capfd.readouterr()
    started = time.perf_counter()
    message = failure()
    assert time.perf_counter() - started < 3  # a second of them is the limit of this test
    assert "take what is on this machine: fastvit_t12.apple_in1k or fastvit_t8.cifar10" in message
    assert how == "error" or "HF_HUB_OFFLINE=1" in message
    assert not caplog.records and capfd.readouterr() == ("", "")
    assert download(here).read_bytes() == WEIGHTS  # what is in the cache needs nothing of this
    assert time.perf_counter() - started < 6


def test_a_client_that_waits_longer_than_it_was_told_is_left_waiting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()  # as where the name of the hub is looked up for ever
    monkeypatch.setattr(hub_file, "SECONDS", 0.1)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: answered.wait(20))
    started = time.perf_counter()
    assert "no response within 0 s" in failure() and time.perf_counter() - started < 5
    answered.set()


def test_without_a_home_nothing_is_kept_and_that_is_said_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.join("~", ".cache"))  # as it is where nobody knows a home
    hub_file._without_home.cache_clear()
    with pytest.warns(FastViTWarning, match="no home folder.*set HF_HOME") as told:
        path = download(ONE)
        assert download(ONE) == path and path.read_bytes() == WEIGHTS
    assert len(told) == 1 and not Path("~").exists() and path.is_relative_to(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "no room for model.safetensors in"),
        (errno.EACCES, "may not be used (Permission denied): allow it, or set HF_HOME to another place"),
        (errno.EIO, "model.safetensors did not come through (Input/output error): try again"),
    ],
)
def test_a_disk_that_does_not_take_it(number: int, advice: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", fail)
    assert advice in failure()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to the superuser")
def test_a_cache_that_may_not_be_written(hub: Hub, cache: Path) -> None:
    cache.mkdir(mode=0o500)
    assert "may not be used" in failure()


def test_a_cache_that_may_not_be_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", fail)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert "may not be used" in failure()


def test_a_file_in_the_way_of_the_cache(hub: Hub, cache: Path) -> None:
    cache.write_text("not a folder")
    assert "did not come through" in failure()


# Shards


def publish_shards(hub: Hub, weight_map: object, **files: bytes) -> None:
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    hub.publish(TOWER.repository, {INDEX: index, **{f"{name}.safetensors": data for name, data in files.items()}})


def test_of_an_index_only_the_shards_with_the_encoder_are_downloaded(hub: Hub) -> None:
    towers = {f"model.vision_tower.block.{i}.weight": f"shard-{i % 2}.safetensors" for i in range(4)}
    others = {"model.layers.0.weight": "shard-2.safetensors", "lm_head.weight": "shard-1.safetensors"}
    publish_shards(hub, towers | others, **{f"shard-{i}": bytes([i]) * LARGE * 2 for i in range(3)})
    index = download(TOWER)
    assert index.name == INDEX
    assert sorted(file.name for file in index.parent.iterdir()) == [INDEX, "shard-0.safetensors", "shard-1.safetensors"]
    assert (index.parent / "shard-1.safetensors").read_bytes() == bytes([1]) * LARGE * 2
    assert hub.asked("GET") == [INDEX, "shard-0.safetensors", "shard-1.safetensors"]
    hub.requests.clear()
    assert download(TOWER) == index and not hub.asked("GET")


def test_shards_are_of_the_commit_of_their_index_though_the_branch_moves_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"}, a=WEIGHTS)
    revisions = hub.repositories[TOWER.repository].revisions
    revisions["old"] = "1" * 40
    shards = client._shards

    def move(*given: Any) -> list[str]:
        revisions["main"] = "2" * 40
        return shards(*given)

    monkeypatch.setattr(client, "_shards", move)
    index = download(TOWER)
    assert (index.parent / "a.safetensors").read_bytes() == WEIGHTS


def test_shards_in_the_cache_need_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"}, a=WEIGHTS)
    index = download(TOWER)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(TOWER) == index
    discard(index.parent / "a.safetensors")
    assert "a.safetensors is not in the cache" in failure(TOWER)


def test_a_damaged_shard_is_removed_and_comes_whole_the_next_time(hub: Hub) -> None:
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"}, a=WEIGHTS)
    download(TOWER)
    discard(download(TOWER).parent / "a.safetensors")
    hub.damage = 7
    assert "a.safetensors was damaged on the way" in failure(TOWER)
    hub.damage = None
    assert (download(TOWER).parent / "a.safetensors").read_bytes() == WEIGHTS


def test_a_shard_that_is_not_there(hub: Hub) -> None:
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"})
    assert "has no a.safetensors, which its index names" in failure(TOWER)


@pytest.mark.parametrize(
    "shard",
    [
        "../../evil.safetensors",
        "/etc/passwd",
        "/tmp/evil.safetensors",
        "..\\evil.safetensors",
        "C:evil.safetensors",
        "folder/evil.safetensors",
        "..",
        "",
        "a.safetensors\n",
        "model.bin",
        5,
        None,
        ["a.safetensors"],
    ],
)
def test_an_index_that_points_elsewhere_is_refused_before_anything_is_asked_for(shard: object, hub: Hub) -> None:
    publish_shards(hub, {"vision_tower.a": "a.safetensors", "vision_tower.b": shard}, a=WEIGHTS)
    assert "which is no file beside it" in (message := failure(TOWER)) or "is no index of shards" in message
    assert hub.asked("GET") == [INDEX]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"weight_map": []}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda content: repr(content[:20]),
)
def test_an_index_that_cannot_be_read_is_removed(content: bytes, hub: Hub) -> None:
    hub.publish(TOWER.repository, {INDEX: content})
    assert "is no index of shards" in failure(TOWER)
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"}, a=WEIGHTS)
    assert download(TOWER).name == INDEX


def test_an_index_of_something_else(hub: Hub) -> None:
    publish_shards(hub, {"model.layers.0.weight": "a.safetensors"}, a=WEIGHTS)
    assert "has no tensor of a vision_tower" in failure(TOWER)
    assert hub.asked("GET") == [INDEX]


# What the caller does with the rest


def test_a_discarded_file_is_downloaded_anew(hub: Hub, cache: Path) -> None:
    path = download(ONE)
    path.resolve().write_bytes(b"damaged later, by a disk")
    assert download(ONE).read_bytes() != WEIGHTS  # what is in the cache is not read through each time
    discard(path)
    assert leftovers(cache) == []
    discard(path)  # once is enough
    assert download(ONE).read_bytes() == WEIGHTS


def test_a_file_that_cannot_be_discarded_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    path = download(ONE)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(WeightsError, match=r"cannot be removed .*Read-only") as error:
        discard(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_discarded_index_takes_its_shards_along(hub: Hub, cache: Path) -> None:
    publish_shards(hub, {"vision_tower.weight": "a.safetensors"}, a=WEIGHTS)
    discard(download(TOWER))
    assert leftovers(cache) == []


def test_nothing_outside_the_cache_is_ever_discarded(hub: Hub, cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "model.safetensors"
    mine.parent.mkdir()
    for name in (mine.name, INDEX):
        (mine.parent / name).write_bytes(WEIGHTS)
    discard(mine)
    discard(mine.parent / INDEX)
    path = download(ONE)
    blob = path.resolve()
    blob.unlink()
    blob.symlink_to(mine)
    discard(path)  # a link in the cache to a file of the user's
    assert not path.is_symlink() and not blob.is_symlink()
    assert mine.read_bytes() == WEIGHTS
    link = tmp_path / "link.safetensors"
    link.symlink_to(download(ONE))
    discard(str(link))  # and the other way round: the damaged weights go, the user's link stays
    assert link.is_symlink() and leftovers(cache) == []
    shutil.rmtree(cache)
    discard(path)


def test_a_name_may_ask_for_a_revision(hub: Hub) -> None:
    hub.publish(ONE.repository, {"model.safetensors": WEIGHTS}, revisions={"main": "1" * 40, "second": "2" * 40})
    row = find(f"{ONE.name}@second")
    assert row is not None and row.name == ONE.name and download(row).parent.name == "2" * 40
    assert find("fastvit_t8@second") == row and find("fastvit_t9@second") is None
    assert find("fastvit_t8.cifar10@second") is None  # it ships with the package, which has one revision


def test_the_licence_is_said_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_printed", set())
    for row in CHECKPOINTS.values():
        print_license(row)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "fastvit_t8.apple_in1k: weights by Apple under fastvit-license, "
        "https://github.com/apple/ml-fastvit/blob/main/LICENSE",
        "fastvit_mci0.apple_mclip: weights by Apple under apple-amlr (research only), "
        "https://huggingface.co/apple/MobileCLIP-S0/blob/main/LICENSE",
    ]


# What is known of the files beforehand

PINNED = CHECKPOINTS["fastvit_mci0.apple_mclip2_dfndr2b"]


def test_the_rows_that_could_be_verified_are_pinned() -> None:
    assert PINNED.revision == "577a2e992da2c7ba7cadc2a490bcfadfb2d69bce" and PINNED.size == 45_921_320
    assert CHECKPOINTS["fastvit_mci0.apple_mclip"].revision == "7628ba98854d84a318027e036c582df9841c556b"
    newest = find(f"{PINNED.name}@main")
    assert newest is not None and (newest.revision, newest.size, newest.digest) == ("main", 0, "")


def test_a_pinned_file_of_another_size_is_refused_before_it_is_downloaded(hub: Hub) -> None:
    revisions = {"main": "1" * 40, "pinned": PINNED.revision}
    hub.publish(PINNED.repository, {"model.safetensors": WEIGHTS}, revisions=revisions)
    assert "has 256,000 bytes, expected 45,921,320 at revision 577a2e99" in failure(PINNED)
    assert f"{PINNED.name}@main takes what is there" in failure(PINNED) and not hub.asked("GET")
    newest = find(f"{PINNED.name}@main")
    assert newest is not None and download(newest).read_bytes() == WEIGHTS
    assert download(replace(PINNED, size=len(WEIGHTS))).read_bytes() == WEIGHTS


@pytest.mark.parametrize("right", [True, False])
def test_a_pinned_hash_is_compared_before_the_download(right: bool, hub: Hub) -> None:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    row = replace(ONE, digest=digest if right else "0" * 64)
    if right:
        assert download(row).read_bytes() == WEIGHTS
    else:
        assert f"has sha256 {digest[:12]}..., expected 000000000000..." in failure(row) and not hub.asked("GET")


def test_a_mirror_without_the_pinned_revision_is_told_how_to_take_the_newest(hub: Hub) -> None:
    hub.publish(PINNED.repository, {"model.safetensors": WEIGHTS})
    message = failure(PINNED)
    assert f"has no revision '{PINNED.revision}': {PINNED.name}@main asks for the newest" in message


@pytest.mark.parametrize("more", [*catalog.METADATA, 1])
def test_a_file_of_an_unexpected_size_is_told_and_taken(more: int, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_file, "EXPECTED_SIZES", {ONE.variant: len(WEIGHTS) - more})
    with pytest.warns(FastViTWarning, match="256,000 bytes, and the weights of") if more == 1 else nullcontext():
        assert download(ONE).read_bytes() == WEIGHTS
