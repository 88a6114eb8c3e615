"""What kind of image a file is, by its first bytes, and which files of a folder are images: content decides."""

import os
from collections import Counter
from collections.abc import Callable

from ..utils.extras import missing
from ..utils.text import some
from ..utils.warning import warn

HEAD = 32  # bytes that tell the kind
SUFFIXES = frozenset((
    ".avif", ".avifs", ".bmp", ".gif", ".ico", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpc", ".jpf",
    ".jpx", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi", ".tif", ".tiff", ".webp",
))  # fmt: skip
# Surely no images, or raw ones of cameras, which look like TIFF and would be read as their small preview.
OTHERS = frozenset((
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".html", ".htm", ".md", ".rst", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".log", ".lst", ".cls", ".py", ".pyc", ".ipynb", ".sh", ".js", ".css", ".m", ".c", ".h", ".cpp", ".mat",
    ".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5", ".parquet", ".arrow", ".safetensors", ".onnx",
    ".db", ".sqlite", ".lock", ".tmp", ".part", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar",
    ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".svg", ".eps", ".ps", ".psd", ".ai", ".xcf",
    ".mp3", ".wav", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".exe", ".dll", ".so", ".url", ".lnk",
    ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw",
))  # fmt: skip
# What systems leave in folders, besides names that begin with a dot.
SYSTEM = frozenset((
    "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini", ".ipynb_checkpoints",
))  # fmt: skip

STARTS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"qoif": "QOI",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF", b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000", b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL", b"\xff\x0a": "JPEG XL",
}  # fmt: skip
PHOTOS = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JPEG XL"}  # which other packages read
BRANDS = dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF")
BRANDS |= dict.fromkeys((b"avif", b"avis"), "AVIF")
BITMAPS = [length.to_bytes(4, "little") for length in (12, 40, 52, 56, 64, 108, 124)]  # of a second header
PORTABLE = [bytes([digit]) for digit in b"123456fF"]
PACKAGES = {
    "HEIF": ("pillow_heif", "pip install 'fastvit[heif]'"),
    "JPEG XL": ("pillow_jxl", "pip install pillow-jxl-plugin"),
}


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system keeps for itself, which nobody means as an image.

    Example:
        >>> from fastvit.images.kinds import is_ignored
        >>> [is_ignored(name) for name in ("@eaDir", ".DS_Store", "..", "cat")]
        [True, True, False, False]
    """
    return (name.startswith(".") and name != "..") or name.lower() in SYSTEM


def is_image_name(name: str) -> bool:
    """Whether a file's name, without folders, has an image's suffix and is not hidden.

    Example:
        >>> from fastvit.images.kinds import is_image_name
        >>> [is_image_name(name) for name in ("cat.JPG", ".cat.jpg", "cat.txt")]
        [True, False, False]
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_ignored(name)


def kind_of(head: bytes) -> str:
    """The first 32 bytes of a file -> JPEG, PNG, HEIF, JPEG XL ...; "" for what is no image.

    Example:
        >>> from fastvit.images.kinds import kind_of
        >>> kind_of(bytes.fromhex("ffd8ffe000104a464946")), kind_of(b"text")
        ('JPEG', '')
    """
    if head[4:8] == b"ftyp":
        return "AVIF" if b"avif" in head[16:] else BRANDS.get(head[8:12], "")
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else ""
    if head[:2] == b"BM":
        return "BMP" if head[6:10] == bytes(4) and head[14:18] in BITMAPS else ""
    if head[:1] == b"P":
        return "PPM" if head[1:2] in PORTABLE and head[2:3].isspace() else ""
    return next((kind for start, kind in STARTS.items() if head.startswith(start)), "")


def missing_package(kind: str) -> str:
    """What to install to read this kind of image; "" if nothing is missing."""
    package, command = PACKAGES.get(kind, ("", ""))
    return command if package and missing(package) else ""


def why_no_image(name: str, head: Callable[[], bytes]) -> str | None:
    """Why a file of a folder is no image: its kind, for `say_left_out`, "" if it is hidden; None if it is one.

    Only files with an unusual suffix, or none, are opened, and of these the first bytes read: so a JPEG is one whatever
    it is called. A text that is called .jpg is found out when it is read.

    Args:
        name: of the file, without folders.
        head: reads its first 32 bytes.

    Example:
        >>> from fastvit.images.kinds import why_no_image
        >>> [why_no_image(name, lambda: b"text") for name in ("cat.jpg", ".cat.jpg", "notes.txt", "cat.dat")]
        [None, '', '.txt', '.dat']
    """
    suffix = os.path.splitext(name)[1].lower()
    if is_ignored(name):
        return ""
    if suffix in SUFFIXES:
        return None
    kind = "" if suffix in OTHERS else kind_of(head())
    needed = missing_package(kind)
    if kind and not needed:
        return None
    called = suffix or kind or "without a suffix"
    return f"{called} ({needed})" if needed else called


def by_kind(counts: Counter[str]) -> str:
    """How many of each kind, the most frequent first; "" for none.

    Example:
        >>> from fastvit.images.kinds import by_kind
        >>> by_kind(Counter({".csv": 1, ".txt": 3}))
        '3 .txt, 1 .csv'
    """
    kinds = sorted((kind for kind in counts if kind and counts[kind]), key=lambda kind: (-counts[kind], kind))
    return some([f"{counts[kind]} {kind}" for kind in kinds], most=12) if kinds else ""


def say_left_out(where: str, counts: Counter[str]) -> None:
    """Warn of files and folders that are left out, if there are any."""
    if left_out := by_kind(counts):
        warn(f"{where}: left out: {left_out}")


def head_of(path: str) -> bytes:
    """The first bytes of a file; none of one that cannot be read, or of a pipe, which might wait for ever."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(HEAD)
    except OSError:
        pass
    return b""
