"""The same small images as a folder, as archives and as shards, each written by somebody else's writer."""

import gc
import io
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import webdataset
from PIL import Image

from fastvit.data import Source

CLASSES = ("cat", "dog", "über hund")  # names are more than ASCII


def image_file(seed: int, kind: str = "PNG", side: int = 8) -> bytes:
    """A file of random pixels."""
    pixels = numpy.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=numpy.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def heic(size: tuple[int, int], seed: int = 0) -> bytes:
    """A photo as phones write it: a green band above a red and a blue half; the test is skipped where none is made."""
    heif, stream = pytest.importorskip("pillow_heif"), io.BytesIO()
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    image.paste("lime", (0, 0, size[0], size[1] // 4))
    try:
        heif.from_pillow(image).save(stream, quality=95)
    except RuntimeError:
        pytest.skip("pillow-heif cannot write here")
    return stream.getvalue()


def contents(per_class: int = 3, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> dict[str, bytes]:
    """CLASS/.../NAME -> a file; the classes are of different sizes, and some images are in folders inside."""
    files: dict[str, bytes] = {}
    for label, name in enumerate(classes):
        for number in range(per_class + label):
            inside = "" if number % 2 else f"more {number}/"
            kind, suffix = ("JPEG", "JPEG") if number % 3 == 0 else ("PNG", "png")
            files[f"{name}/{inside}{number}.{suffix}"] = image_file(seed + 1000 * label + number, kind)
    return files


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "a", packing) as file:
        for name, content in files.items():
            file.writestr(prefix + name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], prefix: str = "", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "a" if path.exists() else "w", **options) as file:
        for name, content in files.items():
            add(file, prefix + name, content)
    return path


def add(file: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    file.addfile(info, io.BytesIO(content))


def sharded(pattern: str, samples: list[dict[str, Any]], count: int) -> str:
    """Written by webdataset, `count` samples in a shard -> the pattern in webdataset's notation."""
    Path(pattern).parent.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(pattern, maxcount=count, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
        shards = writer.shard
    return pattern.replace("%03d", f"{{000..{shards - 1:03}}}")


def samples(number: int, classes: int = 4, **more: Any) -> list[dict[str, Any]]:
    """webdataset's: key, jpg, cls."""
    return [
        {"__key__": f"part {i % 3}/{i:05}", "jpg": image_file(i, "JPEG"), "cls": (7 * i) % classes, **more}
        for i in range(number)
    ]


@contextmanager
def closed_at_last() -> Iterator[None]:
    """Webdataset leaves files open that it has read; the warnings of that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def held(source: Source) -> Counter[tuple[str, bytes]]:
    """What a source holds, in whatever order: names of classes with the bytes of images."""
    found: Counter[tuple[str, bytes]] = Counter()
    for index in range(len(source)):
        content = source.content(index)
        assert isinstance(content, bytes | Path)
        found[
            source.classes[source.labels[index]], content if isinstance(content, bytes) else content.read_bytes()
        ] += 1
    return found


def expected(files: dict[str, bytes]) -> Counter[tuple[str, bytes]]:
    return Counter((name.split("/")[0], content) for name, content in files.items())
