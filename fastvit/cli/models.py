"""fastvit models: the models that there are, and the checkpoints."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from ..utils.text import either, table
from .output import say_json, show

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]  # a heading, as `table` has it, and how a row fills the column

# How the table abbreviates the metrics of the catalogue: what each contains, and what stands for it.
SHORT = {"TextVQA": "TextVQA", "zero-shot": "0-shot", "top-1": "top-1"}
VARIANTS: Columns = {
    "\nname": lambda row: row["name"],
    "\nblocks": lambda row: "-".join(map(str, row["depths"])),
    "\nchannels": lambda row: "-".join(map(str, row["widths"])),
    ">params\nM": lambda row: f"{row['parameters'] / 1e6:.2f}",
    ">fused\nM": lambda row: f"{row['fused_parameters'] / 1e6:.2f}",
    ">fused\nGMACs": lambda row: f"{row['fused_multiply_adds'] / 1e9:.2f}",
    ">at\nsize": lambda row: str(row["size"][0]),
}
CHECKPOINTS: Columns = {  # in 80 columns, with names of 33
    "checkpoint": lambda row: row["name"],
    "form": lambda row: "fused" if row["fused"] else "unfused",
    ">classes": lambda row: f"{row['num_classes']}{'-d' if row['classes'] == 'embedding' else ''}",
    ">size": lambda row: str(row["size"][0]),
    "accuracy, %": lambda row: f"{row['accuracy']:.1f} {_short(row['metric'])}",
    "licence": lambda row: row["license"].removesuffix("-license"),
}


def models(
    pattern: Annotated[str, Parameter(help="A shell pattern, such as '*mci*' or '*.apple_in1k'.")] = "*",
    /,
    *,
    pretrained: Annotated[bool, Parameter(help="List only the checkpoints.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object a line, with all that is known of each.")] = False,
) -> None:
    """List the models, with their parameters and arithmetic, and the checkpoints that can be had by name.

    Parameters are counted before and after reparameterization ("fused"), and
    multiply-adds (GMACs) after it, for one image of the size in the last column.

    For example:

        fastvit models '*mci*'
        fastvit models --pretrained --json
    """
    variants, checkpoints = _records(pattern, pretrained)
    if not variants and not checkpoints:
        raise ValueError(f"no model or checkpoint is named {pattern!r}; fastvit models lists all of them")
    if json:
        for row in variants + checkpoints:
            say_json(row)
        return
    if variants:
        _show_table(VARIANTS, variants)
    if variants and checkpoints:
        show("")
    if checkpoints:
        _show_table(CHECKPOINTS, checkpoints)
        show(*_notes(checkpoints))


def _records(pattern: str, pretrained: bool) -> tuple[list[Row], list[Row]]:
    """All that is known of the models, and of the checkpoints, that match."""
    from ..models.config import CONFIGS, SIZES
    from ..weights.catalog import CHECKPOINTS, PUBLISHED, list_models

    variants, checkpoints = [], []
    for name in [] if pretrained else list_models(pattern):
        more = {"widths": CONFIGS[name].widths, **(SIZES.get(name) or _counted(name))._asdict()}
        tags = [checkpoint.tag for checkpoint in CHECKPOINTS.values() if checkpoint.variant == name]
        variants.append(_record("model", name, CONFIGS[name]) | more | {"weights": tags})
    for name in list_models(pattern, pretrained=True):
        row = _record("checkpoint", name, PUBLISHED[name])
        checkpoints.append(row | {"hub_id": row.pop("repository")})  # "" for what ships with the package
    return variants, checkpoints


def _counted(name: str) -> Any:
    """Of a variant whose counts are not in the table: this imports torch, and takes its time."""
    from ..models.flops import size_of

    return size_of(name)


def _record(kind: str, name: str, known: Any) -> Row:
    preprocess = known.preprocess
    return {"kind": kind, "name": name} | asdict(known) | {"size": preprocess.size, "preprocess": preprocess.to_cfg()}


def _show_table(columns: Columns, rows: list[Row]) -> None:
    show(table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows]))


def _notes(rows: list[Row]) -> list[str]:
    """What the abbreviations in the table of checkpoints mean, as far as it has them."""
    metrics: dict[str, list[str]] = {}
    for metric in sorted({row["metric"] for row in rows}, reverse=True):
        metrics.setdefault(_short(metric), []).append(metric)
    embeddings = sorted({row["num_classes"] for row in rows if row["classes"] == "embedding"})
    return [
        "\nAccuracies are those that the authors publish; --json names the sources.",
        *(f"  {short}: {either(metrics[short])}" for short in sorted(metrics)),
        *(f"{count}-d: an embedding of {count} numbers, not classes." for count in embeddings),
        "Licences are for the weights, not for this code; --json has their addresses.",
    ]


def _short(metric: str) -> str:
    return next(short for word, short in SHORT.items() if word in metric)
