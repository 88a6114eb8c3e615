"""fastvit bench: how fast a network is on this machine, by every engine there is."""

from __future__ import annotations

import json as format_json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import fail

if TYPE_CHECKING:
    from fastvit.bench import Race, Way


def main(
    model: Annotated[str, typer.Argument(help="A name, or what `fastvit.load` reads.")] = "fastvit_sa12",
    size: Annotated[
        int | None, typer.Option(help="Height and width of the images (default: the network's own).", min=32)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Of each engine (default: as many as torch takes).", min=1)
    ] = None,
    seconds: Annotated[float, typer.Option(help="To measure for, beside the preparations.", min=0)] = 20.0,
    engine: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Time a network by every engine and precision that is installed, against plain PyTorch.

    Each has a process of its own, and they take turns. A bare name, such as fastvithd, gets random weights, which are
    as fast as any. Preparing torch.compile takes a minute or more.
    """
    import torch
    from rich.console import Console

    from fastvit.bench import backends as ways
    from fastvit.bench import race
    from fastvit.models.forms import form_of

    try:
        usable, reasons = ways.engines(tuple(engine or ()))
        network = ways.network(model)
        pixels = (size, size) if size else network.preprocess.size
        subject = ways.Subject(model, pixels, batch_size, threads or torch.get_num_threads())
        if not usable:
            raise ValueError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    except (ValueError, OSError) as error:
        fail(error)
    plain = ways.eager(subject, f"eager, {form_of(network)}")
    entrants = [plain, *(ways.ours(subject, name, precision) for name, precision in usable)]
    with Console(stderr=True).status("preparing") as status:
        result = race(entrants, threads=subject.threads, seconds=seconds, progress=status.update)
    result.failed.update(reasons)
    report = _report(result, plain, subject)
    if json:
        typer.echo(format_json.dumps(report))
    else:
        _print(report)
    if not result.seconds:
        raise typer.Exit(1)


def _report(result: Race, plain: Way, subject: Any) -> dict[str, Any]:
    from fastvit.bench import quartiles, ratio
    from fastvit.bench.stats import difference, machine

    rows = []
    for name, seconds in result.seconds.items():
        row: dict[str, Any] = {"way": name, "milliseconds": [1000 * value for value in quartiles(seconds)]}
        row["images_per_second"] = 1000 * subject.batch / row["milliseconds"][1]
        if plain.name in result.seconds:
            row["times_faster"] = list(ratio(result.seconds[plain.name], seconds))
            apart = difference(result.answers[plain.name], result.answers[name])
            row["difference"] = apart if math.isfinite(apart) else None  # JSON has no infinity
        rows.append(row)
    return {
        "model": subject.source,
        "size": list(subject.size),
        "batch_size": subject.batch,
        "threads": subject.threads,
        "machine": machine(),
        "against": plain.name,
        "turns": max(map(len, result.seconds.values()), default=0),
        "ways": sorted(rows, key=lambda row: float(row["milliseconds"][1])),
        "failed": result.failed,
    }


def _print(report: dict[str, Any]) -> None:
    """The table, the fastest first; each number as median and quartiles."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "ms", "images/s", "times faster", "differs", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for column in table.columns:
        column.no_wrap = True
    for row in report["ways"]:
        faster, apart = row.get("times_faster"), row.get("difference", math.nan)
        table.add_row(
            row["way"],
            _spread(row["milliseconds"], 1),
            f"{row['images_per_second']:.1f}",
            _spread(faster, 2) if faster else "",
            "inf" if apart is None else f"{apart:.0e}" if faster else "",
        )
    height, width = report["size"]
    console = Console(highlight=False, markup=False, emoji=False)  # a file may have any name
    with console.capture() as capture:  # typer knows what to do when the reader of a pipe has left
        console.print(report["machine"], "", sep="\n")
        console.print(
            f"{report['model']}, {report['batch_size']} x {height} x {width}, {report['threads']} threads, "
            f"{report['turns']} turns; against {report['against']}"
        )
        console.print(table)
        for name, reason in report["failed"].items():
            console.print(f"{name}: {reason}")
    typer.echo(capture.get(), nl=False)


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits if value < 100 else 0}f}" for value in values)
    return f"{middle} ({low}-{high})"
