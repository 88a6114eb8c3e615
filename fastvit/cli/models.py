"""fastvit models: the models that there are, and the checkpoints."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .output import say_json, show

if TYPE_CHECKING:
    from rich.table import Table

# How the table abbreviates the metrics of the catalogue: what each contains, and what stands for it.
_SHORT = {"TextVQA": "TextVQA", "zero-shot": "0-shot", "top-1": "top-1"}


def models(
    pattern: Annotated[str, Parameter(help="A shell pattern, such as '*mci*' or '*.apple_in1k'.")] = "*",
    /,
    *,
    pretrained: Annotated[bool, Parameter(negative="", help="List only the checkpoints.")] = False,
    json: Annotated[
        bool, Parameter(negative="", help="Print one JSON object a line, with all that is known of each.")
    ] = False,
) -> None:
    """List the models, with their parameters and arithmetic, and the checkpoints that can be had by name.

    Parameters are counted before and after reparameterization ("fused"), and
    multiply-adds (GMACs) after it, for one image of the size in the last column.

    For example:

        fastvit models '*mci*'
        fastvit models --pretrained --json
    """
    from ..weights.catalog import list_models

    names = [] if pretrained else list_models(pattern)
    tagged = list_models(pattern, pretrained=True)
    if not names and not tagged:
        raise ValueError(f"no model or checkpoint is named {pattern!r}; fastvit models lists all of them")
    rows, checkpoints = [_model(name) for name in names], [_checkpoint(name) for name in tagged]
    if json:
        for row in rows + checkpoints:
            say_json(row)
        return
    if rows:
        show(_model_table(rows))
    if rows and checkpoints:
        show("")
    if checkpoints:
        show(_checkpoint_table(checkpoints), *_notes(checkpoints))


def _model(name: str) -> dict[str, Any]:
    from ..models.config import CONFIGS
    from ..models.sizes import SIZES
    from ..weights.catalog import list_models

    config = CONFIGS[name]
    return {
        "kind": "model",
        "name": name,
        "depths": config.depths,
        "widths": config.widths,
        **SIZES[name]._asdict(),
        "size": config.preprocess.size,
        "num_classes": config.num_classes,
        "preprocess": config.preprocess.to_cfg(),
        "weights": [tagged.partition(".")[2] for tagged in list_models(f"{name}.*", pretrained=True)],
    }


def _checkpoint(name: str) -> dict[str, Any]:
    """All that the catalogue says; its `repository` is called hub_id, "" for what ships with the package."""
    from ..weights.catalog import CHECKPOINTS

    checkpoint = CHECKPOINTS[name]
    row = dataclasses.asdict(checkpoint)
    row["hub_id"] = row.pop("repository")
    row["preprocess"] = checkpoint.preprocess.to_cfg()
    return {"kind": "checkpoint", "name": name, "size": checkpoint.preprocess.size, **row}


def _model_table(rows: list[dict[str, Any]]) -> Table:
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
    """What the abbreviations in the table mean, as far as it has them."""
    metrics: dict[str, list[str]] = {}
    for metric in dict.fromkeys(row["metric"] for row in rows):
        metrics.setdefault(_short(metric), []).append(metric)
    embeddings = [row["num_classes"] for row in rows if row["classes"] == "embedding"][:1]
    return [
        "\nAccuracies are those that the authors publish; --json names the sources.",
        *(f"  {short}: {'; '.join(long)}" for short, long in metrics.items() if long != [short]),
        *(f"{count}-d: an embedding of {count} numbers, not classes." for count in embeddings),
        "Licences are for the weights, not for this code; --json has their addresses.",
    ]


def _short(metric: str) -> str:
    return next((short for word, short in _SHORT.items() if word in metric), metric)


def _edges(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
