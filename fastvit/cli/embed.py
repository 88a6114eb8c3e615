"""fastvit embed: the features of very many pictures, as Parquet files."""

from __future__ import annotations

import json as format_json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import PLAIN, DeviceName, EngineName, FastDecoding, device_for
from .output import fail, working

if TYPE_CHECKING:
    from fastvit.data import Source
    from fastvit.embedding.config import Job
    from fastvit.embedding.extractor import FeatureNetwork
    from fastvit.embedding.parquet import Parts, Unreadable

EVERY_SECONDS = 30  # between two lines of progress where there is no terminal to draw a bar on
SHOWN = 20  # pictures that could not be read


def main(
    model: Annotated[str, typer.Argument(help="A name with its weights, or what `fastvit.load` reads.")],
    data: Annotated[
        str,
        typer.Argument(help="A folder, .zip or .tar of pictures, in class folders or not; or what train reads."),
    ],
    output_folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that receives the files.")],
    split: Annotated[str, typer.Option(help="Of data that has some: train, test ...")] = "",
    outputs: Annotated[
        str,
        typer.Option(
            help="features: pooled, as the classifier reads them; head: what the network gives, logits or an embedding "
            "(default: head for MobileCLIP's embeddings, else features)."
        ),
    ] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="To unit length, for cosine similarity.")] = False,
    dtype: Annotated[str, typer.Option(help="Of the numbers in the files: float32 or float16.")] = "float32",
    rows: Annotated[int, typer.Option(help="Pictures in a file, and what a kill can cost.", min=1, max=10**6)] = 10_000,
    processes: Annotated[int, typer.Option(help="Processes on this machine, which share its cores.", min=1)] = 1,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 64,
    device: DeviceName = "",
    engine: EngineName = "torch",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16; not every engine has all.")] = "float32",
    fast_decoding: FastDecoding = False,
    most_unreadable: Annotated[
        int, typer.Option(help="Leave out so many pictures that cannot be read; they are listed.", min=0)
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the features of all pictures into OUT/part-*.parquet: columns name, label and embedding.

    Killed at any time, the same command goes on, with any number of processes, and each picture is there exactly once.
    torchrun and accelerate launch start it on several machines; each process then speaks for its own files.
    """
    from fastvit.deploy.engines import EngineError
    from fastvit.embedding.config import Job
    from fastvit.embedding.launch import ProcessError

    run = None
    try:
        job = Job(
            model=model,
            data=data,
            folder=output_folder,
            split=split,
            output=outputs,
            normalize=normalize,
            dtype=dtype,
            rows=rows,
            batch_size=batch_size,
            device=device,
            engine=engine,
            precision=precision,
            fast_decoding=fast_decoding,
            most_unreadable=most_unreadable,
        )
        run = _prepared(job, processes)
        seconds, embedded = run.embed()
        summary = run.summary(seconds, embedded)
    except ProcessError as error:
        fail(error, status=1)
    except (ValueError, OSError, EngineError) as error:
        fail(error, status=1 if run else 2)
    except KeyboardInterrupt:
        kept = f"{run.kept() if run else 'no'} pictures are kept"
        typer.echo(f"interrupted: {kept}; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    _print(summary, json)


@dataclass
class Run:
    """All that is known before the first picture is read."""

    job: Job
    network: FeatureNetwork | None  # None where other processes run it
    source: Source
    parts: Parts
    record: dict[str, Any]
    process: int  # of those that a launcher started
    launched: int  # how many it started
    processes: int  # that are to be started here
    before: dict[int, list[Unreadable]]  # the files that were there already

    def embed(self) -> tuple[float, int]:
        """The seconds that it took from the first read on, and the pictures."""
        from fastvit.embedding.launch import embed_in_processes, shares
        from fastvit.embedding.worker import check_unreadable, embed_parts

        wanted = [part for part in self.own() if part not in self.before]
        lost = [each for skipped in self.before.values() for each in skipped]
        check_unreadable(lost, self.job.most_unreadable)
        allowed = self.job.most_unreadable - len(lost)
        total = sum(len(self.parts.indices(part)) for part in wanted)
        if not wanted:
            return 0.0, 0
        if self.processes > len(wanted):
            typer.echo(f"note: {len(wanted)} files for {self.processes} processes; --rows makes more of them", err=True)
        with Progress(total, shown=not self.process, allowed=allowed) as progress:
            progress.restart()
            if self.network:
                task = (self.job, self.network, self.source, self.parts, wanted, self.record, allowed)
                embed_parts(*task, progress.advance)
            else:
                rest = (self.source, self.parts, wanted, self.record, allowed, self.processes)
                embed_in_processes(shares(self.job, *rest), progress.restart, progress.advance)
            return progress.seconds, total

    def own(self) -> range:
        """The files of this process."""
        return range(self.process, len(self.parts), self.launched)

    def kept(self) -> int:
        return sum(len(self.parts.indices(part)) for part in self.own() if self.parts.path(part).exists())

    def summary(self, seconds: float, embedded: int) -> dict[str, Any]:
        """Counted once more in the files themselves. A DataError, if one is not there."""
        from fastvit.data import DataError
        from fastvit.utils.text import some

        finished = self.parts.finished()
        if missing := [self.parts.path(part).name for part in self.own() if part not in finished]:
            raise DataError(f"{self.job.folder}: {some(missing)} went missing meanwhile; the same command goes on")
        unreadable = [each for part in self.own() for each in finished[part]]
        pictures = sum(len(self.parts.indices(part)) for part in self.own())
        return {
            "model": self.job.model,
            "data": self.job.data,
            "output": self.record["output"],
            "width": self.record["width"],
            "images": pictures - len(unreadable),
            "images_before": pictures - embedded,
            "unreadable": [each._asdict() for each in unreadable],
            "files": len(self.own()),
            "process": self.process,
            "processes": max(self.processes, self.launched),
            "seconds": seconds,
            "images_per_second": embedded / seconds if seconds else None,
        }


def _prepared(job: Job, processes: int) -> Run:
    """Whatever can be wrong is found here, before any work is done."""
    from fastvit.embedding.extractor import FeatureNetwork
    from fastvit.embedding.launch import device_of, launched
    from fastvit.embedding.manifest import NAME, agree, record_of
    from fastvit.embedding.parquet import Parts, check_pyarrow
    from fastvit.embedding.unlabelled import open_pictures
    from fastvit.utils.atomic import check_writable

    check_pyarrow()
    process, started, local = launched()
    if started > 1 and processes > 1:
        raise ValueError(f"--processes {processes}: {started} have been started already; leave it out")
    chosen = str(device_for(job.device, job.engine))
    job = replace(job, device=device_of(chosen, local) if processes == 1 else chosen)
    network = FeatureNetwork(job)
    if job.engine == "auto":
        with working(f"measuring engines in {job.precision}"):
            name, why = network.fastest()
        typer.echo(why, err=True)
        network.job = job = replace(job, engine=name)
    if processes == 1 or (job.engine, job.precision) != PLAIN:  # converted once, and kept on disk for all processes
        with working(f"preparing {job.engine} in {job.precision}"):
            network.prepare()
    with working(f"looking for pictures in {job.data}"):
        source = open_pictures(job.data, job.split)
        record = record_of(job, network, source)
    job.folder.mkdir(parents=True, exist_ok=True)
    check_writable(job.folder / NAME)
    agree(job.folder, record, process)
    parts = Parts(job.folder, len(source), job.rows)
    runs_here = network if processes == 1 else None
    return Run(job, runs_here, source, parts, record, process, started, processes, parts.finished())


class Progress:
    """A bar on a terminal; elsewhere a line every half minute. It also counts what cannot be read, in all processes."""

    def __init__(self, total: int, *, shown: bool, allowed: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.total, self.shown, self.allowed, self.done = total, shown, allowed, 0
        self.terminal = shown and console.is_terminal
        self.lost = list["Unreadable"]()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not self.terminal)
        self.task = self.bar.add_task("", total=total, note="starting")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def restart(self) -> None:
        """The first picture is about to be read."""
        self.began = self.told = time.perf_counter()
        self.bar.start()

    def advance(self, number: int, unreadable: list[Unreadable]) -> None:
        """Raises DataError: more cannot be read than is allowed."""
        from fastvit.embedding.worker import check_unreadable

        self.lost += unreadable
        check_unreadable(self.lost, self.allowed)
        self.done += number
        speed = self.done / self.seconds
        self.bar.update(self.task, completed=self.done, note=f"{speed:.0f} images/s")
        now = time.perf_counter()
        if self.shown and not self.terminal and now - self.told >= EVERY_SECONDS:
            self.told = now
            left = (self.total - self.done) / speed
            typer.echo(f"{self.done}/{self.total}  {speed:.0f} images/s  {left:.0f} s left", err=True)


def _print(summary: dict[str, Any], json: bool) -> None:
    """What is left out first, the results last."""
    if json:
        typer.echo(format_json.dumps(summary))
        return
    left_out = summary["unreadable"]
    for each in left_out[:SHOWN]:
        typer.echo(f"left out: {each['reason']}", err=True)
    if len(left_out) > SHOWN:
        typer.echo(f"left out: {len(left_out) - SHOWN} more, which --json lists", err=True)
    speed = summary["images_per_second"]
    now = f"{speed:.0f} images/s" if speed else "nothing was left to do"
    before = f", {summary['images_before']} of them before" if summary["images_before"] and speed else ""
    typer.echo(
        f"{summary['images']} pictures{before}, {summary['width']} numbers each, in {summary['files']} files; {now}"
    )
