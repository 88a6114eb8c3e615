"""fastvit models: the networks there are, and the checkpoints."""

from __future__ import annotations

import dataclasses
import json as format_json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import fail

if TYPE_CHECKING:
    from rich.table import Table

# How the table abbreviates the metrics of the catalogue: what each contains, and what stands for it.
_SHORT = {"TextVQA": "TextVQA", "zero-shot": "0-shot", "top-1": "top-1"}


def main(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as '*mci*' or '*.apple_in1k'.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only the checkpoints.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, with all that is known.")] = False,
) -> None:
    """List the networks, with their size and arithmetic, and the checkpoints that can be had by name."""
    from rich.console import Console

    from fastvit.create import list_models

    names = [] if pretrained else list_models(pattern)
    tagged = list_models(pattern, pretrained=True)
    if not names and not tagged:
        fail(ValueError(f"no network or checkpoint is named {pattern!r}; fastvit models lists all of them"))
    with Console(stderr=True).status("counting") as status:  # ten seconds for all of them
        networks = []
        for name in names:
            status.update(f"counting parameters and multiply-adds of {name}")
            networks.append(_network(name))
    checkpoints = [_checkpoint(name) for name in tagged]
    if json:
        for row in networks + checkpoints:
            typer.echo(format_json.dumps(row))
        return
    console = Console(highlight=False)
    with console.capture() as capture:  # typer knows what to do when the reader of a pipe has left
        if networks:
            console.print(_network_table(networks))
        if networks and checkpoints:
            console.print()
        if checkpoints:
            console.print(_checkpoint_table(checkpoints), *_notes(checkpoints), sep="\n")
    typer.echo(capture.get(), nl=False)


def _network(name: str) -> dict[str, Any]:
    from fastvit.create import list_models
    from fastvit.models.config import CONFIGS
    from fastvit.models.flops import multiply_adds
    from fastvit.models.forms import outline
    from fastvit.models.reparam import reparameterize

    config = CONFIGS[name]
    model = outline(config)
    parameters = _count(model.parameters())
    reparameterize(model, inplace=True)
    return {
        "kind": "network",
        "name": name,
        "depths": config.depths,
        "widths": config.widths,
        "parameters": parameters,
        "fused_parameters": _count(model.parameters()),
        "fused_multiply_adds": multiply_adds(model, config.preprocess.size),
        "size": config.preprocess.size,
        "num_classes": config.num_classes,
        "preprocess": config.preprocess.to_cfg(),
        "weights": [tagged.partition(".")[2] for tagged in list_models(f"{name}.*", pretrained=True)],
    }


def _count(parameters: Iterable[Any]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _checkpoint(name: str) -> dict[str, Any]:
    """All that the catalogue says; its `repository` is called hub_id, "" for what ships with the package."""
    from fastvit.weights.catalog import CHECKPOINTS

    checkpoint = CHECKPOINTS[name]
    said = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    said["hub_id"] = said.pop("repository")
    said["preprocess"] = checkpoint.preprocess.to_cfg()
    return {"kind": "checkpoint", "name": name, "size": checkpoint.preprocess.size, **said}


def _network_table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("name", "blocks", "channels"):
        table.add_column(f"\n{heading}", overflow="fold")
    for heading in ("params\nM", "fused\nM", "fused\nGMACs", "at\nsize"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        blocks, channels = ("-".join(map(str, row[key])) for key in ("depths", "widths"))
        counts = (f"{row[key] / 1e6:.2f}" for key in ("parameters", "fused_parameters"))
        multiply_adds = f"{row['fused_multiply_adds'] / 1e9:.2f}"
        table.add_row(row["name"], blocks, channels, *counts, multiply_adds, _edges(row["size"]))
    return table


def _checkpoint_table(rows: list[dict[str, Any]]) -> Table:
    """80 columns, with names of 33: so "512-d" stands for an embedding, and a word for a metric."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("checkpoint", "form", "classes", "size", "accuracy, %", "licence"):
        table.add_column(heading, justify="right" if heading in ("classes", "size") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            "fused" if row["fused"] else "unfused",
            str(row["num_classes"]) + ("-d" if row["classes"] == "embedding" else ""),
            _edges(row["size"]),
            f"{row['accuracy']:.1f} {_short(row['metric'])}",
            row["license"].removesuffix("-license"),
        )
    return table


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the table's abbreviations mean, of those that it has."""
    metrics: dict[str, list[str]] = {}
    for metric in dict.fromkeys(row["metric"] for row in rows):
        metrics.setdefault(_short(metric), []).append(metric)
    embeddings = [row for row in rows if row["classes"] == "embedding"]
    return [
        "\nAccuracies are those that the authors publish; --json names the sources.",
        *(f"  {short}: {'; '.join(long)}" for short, long in metrics.items() if long != [short]),
        *([f"{embeddings[0]['num_classes']}-d: an embedding of so many numbers, no classes."] if embeddings else []),
        "Licences are for the weights, not for this code; --json has their addresses.",
    ]


def _short(metric: str) -> str:
    return next((short for word, short in _SHORT.items() if word in metric), metric)


def _edges(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
