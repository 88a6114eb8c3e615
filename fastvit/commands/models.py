"""fastvit models: the networks there are."""

from __future__ import annotations

import json as format_json
from typing import Annotated, Any

import typer


def main(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as '*mci*'.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only those with weights.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the networks: blocks, channels, parameters before and after folding, and weights by name."""
    from fastvit import list_models

    rows = [_row(name) for name in list_models(pattern) if not pretrained or list_models(f"{name}.*", pretrained=True)]
    if json:
        for row in rows:
            typer.echo(format_json.dumps(row))
        return
    if not rows:
        typer.echo(f"error: no network is named {pattern!r}; fastvit models lists all of them", err=True)
        raise typer.Exit(2)
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "blocks", "channels", "parameters, M", "folded, M", "size", "weights", box=None)
    for column in table.columns[3:6]:
        column.justify = "right"
    for row in rows:
        blocks, channels = ("-".join(map(str, row[key])) for key in ("depths", "widths"))
        millions = (f"{row[key] / 1e6:.2f}" for key in ("parameters", "folded_parameters"))
        table.add_row(row["name"], blocks, channels, *millions, str(row["size"][0]), ", ".join(row["weights"]))
    Console(width=None if Console().is_terminal else 120).print(table)


def _row(name: str) -> dict[str, Any]:
    import torch

    from fastvit import CONFIGS, FastViT, list_models, reparameterize

    config = CONFIGS[name]
    with torch.device("meta"):
        model = FastViT(config).eval()
    folded = reparameterize(model)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (model, folded)]
    return {
        "name": name,
        "depths": config.depths,
        "widths": config.widths,
        "parameters": counts[0],
        "folded_parameters": counts[1],
        "size": config.preprocess.size,
        "weights": [tagged.partition(".")[2] for tagged in list_models(f"{name}.*", pretrained=True)],
    }
