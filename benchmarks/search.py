"""Search in the features of a million images: time and memory, exact and by approximate indices of other libraries.

    python benchmarks/search.py                   rewrites its section of benchmarks/README.md
    python benchmarks/search.py --quick           100,000 images, without indices, printed only

The features are random, around as many centres as a data set might have kinds of images, and written as
`fastvit embed` writes them. A query is answered by `fastvit.embedding.nearest`, in a process of its own: *reading* is
the time until the files are arrays, *computing* the rest of the same pass, with the names at its end. *Memory* is what
the process takes more than before. The indices get all features at once, in float16 or float32 as they take them;
*recall* is how many of the nearest 20 they find.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from readme import write_section
from results import heading, markdown, page, parsed, surroundings

from fastvit.bench.racing import peak, start_peak
from fastvit.embedding import Embeddings, Parts, nearest
from fastvit.embedding.features import FeatureFolder

WIDTH, K, CENTRES, SPREAD = 512, 20, 2000, 0.04
QUERIES = (1, 16)
ROWS = (10_000, 100_000)  # images in a file
INDEX_QUERIES = 100


def random_features(number: int, draw: numpy.random.Generator, centres: NDArray[Any]) -> NDArray[numpy.float16]:
    """Unit vectors around random ones of the centres."""
    rows = centres[draw.integers(len(centres), size=number)]
    rows = rows + draw.normal(0, SPREAD, rows.shape).astype(numpy.float32)
    return (rows / numpy.linalg.norm(rows, axis=1, keepdims=True)).astype(numpy.float16)


def written(path: Path, images: int, rows: int) -> Path:
    """A folder of features, as `fastvit embed` writes it."""
    manifest = {"images": images, "rows": rows, "width": WIDTH, "dtype": "float16", "classes": []}
    folder, draw = FeatureFolder(path, manifest), numpy.random.default_rng(0)
    folder.write_or_compare()
    centres = draw.normal(size=(CENTRES, WIDTH)).astype(numpy.float32) / WIDTH**0.5
    for number in range(len(folder)):
        names = [f"{index:07}.jpg" for index in folder.indices(number)]
        features = random_features(len(names), draw, centres)
        folder.write(number, Embeddings(names, None, features, [], []))
    return path


class Stopwatch:
    """Items of another iterable, and the seconds that it took to give them."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items, self.seconds = items, 0.0

    def __iter__(self) -> Iterator[Any]:
        started = time.perf_counter()
        for item in self.items:
            self.seconds += time.perf_counter() - started
            yield item
            started = time.perf_counter()


def measured(folder: Path, queries: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of reading and of computing, the least of some rounds each, and MB; in a process of its own."""
    parts = Parts(folder)
    asked = numpy.random.default_rng(1).normal(size=(queries, WIDTH))
    parts.names([0])
    nearest([numpy.eye(K, WIDTH, dtype=numpy.float16)], asked, K)  # imports, and threads
    start_peak()
    before, passes = peak(), []
    for _ in range(rounds):
        reading, started = Stopwatch(parts), time.perf_counter()
        parts.names(nearest(reading, asked, K).indices[0])
        passes.append((reading.seconds, time.perf_counter() - started - reading.seconds))
    read, computed = zip(*passes, strict=True)
    return min(read), min(computed), (peak() - before) / 2**20


def exact(folders: dict[int, Path], rounds: int) -> str:
    """A row for each size of files and number of queries."""
    lines = []
    for rows, folder in folders.items():
        for queries in QUERIES:
            with get_context("spawn").Pool(1) as pool:
                reading, computing, memory = pool.apply(measured, (folder, queries, rounds))
            part = rows * WIDTH * 2 / 2**20
            numbers = f"{reading:.2f}", f"{computing:.2f}", f"{memory:.0f}", f"{part:.0f}"
            lines.append((f"{rows:,}", str(queries), *numbers))
            print(f"{rows:,} images in a file, {queries} queries: {' '.join(numbers)}", file=sys.stderr)
    return markdown(("images in a file", "queries", "reading, s", "computing, s", "memory, MB", "a file, MB"), lines)


# --- indices ---


def usearch(features: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """HNSW with usearch's defaults."""
    from usearch.index import Index

    index = Index(ndim=WIDTH, metric="ip", dtype="f16")
    index.add(numpy.arange(len(features)), features)
    return lambda queries: numpy.atleast_2d(index.search(queries.astype(features.dtype), K).keys)


def faiss_hnsw(features: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """HNSW with 32 links, of features in float32."""
    import faiss

    index = faiss.IndexHNSWFlat(WIDTH, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(features.astype(numpy.float32))
    return lambda queries: index.search(queries.astype(numpy.float32), K)[1]


def faiss_lists(features: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Inverted lists of features in float16, a sixteenth of which is looked into."""
    import faiss

    lists = int(len(features) ** 0.5)
    index = faiss.index_factory(WIDTH, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(features[: 50 * lists].astype(numpy.float32))
    for start in range(0, len(features), 2**14):
        index.add(features[start : start + 2**14].astype(numpy.float32))
    index.nprobe = max(1, lists // 16)
    return lambda queries: index.search(queries.astype(numpy.float32), K)[1]


INDICES = {
    "usearch HNSW": ("usearch", usearch),
    "faiss HNSW": ("faiss", faiss_hnsw),
    "faiss IVF": ("faiss", faiss_lists),
}


def indexed(name: str, folder: Path) -> tuple[float, float, float, float]:
    """Seconds to build, milliseconds of a query, recall in percent, and MB; in a process of its own."""
    parts = Parts(folder)
    features = numpy.concatenate(list(parts))
    draw = numpy.random.default_rng(1)
    asked = features[draw.integers(len(features), size=INDEX_QUERIES)].astype(numpy.float32)
    asked += draw.normal(0, SPREAD / 4, asked.shape).astype(numpy.float32)
    expected = nearest([features], asked, K).indices
    start_peak()
    before, started = peak(), time.perf_counter()
    search = INDICES[name][1](features)
    built, memory = time.perf_counter() - started, (peak() - before) / 2**20
    found, times = [], []
    for query in asked:
        started = time.perf_counter()
        found.append(search(query[None]))
        times.append(time.perf_counter() - started)
    hits = sum(len({*a.tolist()} & {*b.ravel().tolist()}) for a, b in zip(expected, found, strict=True))
    return built, 1000 * float(numpy.median(times)), 100 * hits / expected.size, memory


def exactly(folder: Path) -> float:
    """Milliseconds of a query by `nearest`, of features that are in memory already; in a process of its own."""
    features = numpy.concatenate(list(Parts(folder)))
    times = []
    for query in numpy.random.default_rng(1).normal(size=(INDEX_QUERIES // 5, WIDTH)):
        started = time.perf_counter()
        nearest([features], query, K)
        times.append(time.perf_counter() - started)
    return 1000 * float(numpy.median(times))


def compared(folder: Path) -> Iterator[tuple[str, ...]]:
    """A row for each index that is installed, after that of the exact search."""
    with get_context("spawn").Pool(1) as pool:
        yield "none: exact", "0", f"{pool.apply(exactly, (folder,)):.1f}", "100.0", "0"
    for name, (package, _) in INDICES.items():
        if find_spec(package) is None:
            print(f"without {name}: {package} is not installed", file=sys.stderr)
            continue
        with get_context("spawn").Pool(1) as pool:
            built, query, recall, memory = pool.apply(indexed, (name, folder))
        yield name, f"{built:.0f}", f"{query:.1f}", f"{recall:.1f}", f"{memory:.0f}"
        print(f"{name}: built in {built:.0f} s", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = page(__doc__)
    parser.add_argument("--images", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the fastest counts (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="100,000 images, two rounds, no indices")
    parser.add_argument(
        "--indexed",
        type=int,
        default=100_000,
        help="images to compare with usearch and faiss on, if they are installed; 0 for none (default %(default)s)",
    )
    return parsed(parser)


def main() -> None:
    options = arguments()
    images, rounds = (100_000, 2) if options.quick else (options.images, options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {rows: written(Path(scratch, str(rows)), images, rows) for rows in ROWS}
        sizes = sum(file.stat().st_size for file in folders[ROWS[0]].iterdir()) / 2**20
        about = f"{images:,} images, {WIDTH} numbers each in float16, {sizes:,.0f} MB; the {K} nearest of all:"
        paragraphs = [heading(surroundings(more=["pyarrow"])), about, exact(folders, rounds)]
        some = 0 if options.quick else min(images, options.indexed)
        if some:
            folder = written(Path(scratch, "indexed"), some, ROWS[1])
            rows = list(compared(folder))
            paragraphs.append(f"{some:,} of such images by approximate indices:")
            paragraphs.append(markdown(("index", "built, s", "a query, ms", "recall, %", "memory, MB"), rows))
    text = "\n\n".join(paragraphs)
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
