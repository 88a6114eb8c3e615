"""fastvit convert: a checkpoint of anybody's -> a file in the names, and of the form, that somebody else expects."""

from __future__ import annotations

import json as format_json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import fail, working

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.models.fastvit import FastViT
    from fastvit.weights.read import Weights

CALIBRATION = 64 * 256 * 256  # pixels to measure batch norm's statistics on; more of them change little


class Names(str, Enum):
    fastvit = "fastvit"
    timm = "timm"
    apple = "apple"


class Dtype(str, Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def main(
    source: Annotated[str, typer.Argument(help="A file, a folder, or a name that `fastvit models` lists.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .safetensors; in others' names .pt, .pth.tar too.")],
    names: Annotated[Names, typer.Option(help="Whose names the file has.")] = Names.fastvit,
    fold: Annotated[bool, typer.Option("--fold", help="Fold it, as far as those names allow.")] = False,
    unfold: Annotated[bool, typer.Option("--unfold", help="Give a fused one its training branches back.")] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(help="With --unfold: pictures, folders or patterns to measure batch norm's statistics on."),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which of two variants of the same shapes it is.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of the weights of convolutions and linear layers.")] = Dtype.float32,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Read a checkpoint, say what it is, and write it in other names or in another form.

    What was written is read again and compared with what was read: the last line of the report.
    """
    import torch

    from fastvit.checkpoint import check_target, from_weights, load, save
    from fastvit.utils.atomic import check_writable
    from fastvit.weights.read import read

    try:
        if fold and unfold:
            raise ValueError("--fold and --unfold at once: choose one")
        if images and not unfold:
            raise ValueError("--images without --unfold, which they are for")
        check_target(out, names.value)
        check_writable(out)
        with working(f"reading {source}"):
            weights = read(source, variant)
            given = from_weights(weights)
        with working("converting"):
            model = _formed(given, names, fold, unfold, images)
            smaller = None if dtype is Dtype.float32 else getattr(torch, dtype.value)
            save(model, out, names=names.value, dtype=smaller)
            written = load(out, variant=weights.variant)
            difference = _difference(given, written)
    except (ValueError, OSError) as error:
        fail(error)
    report = _report(weights, given, written) | {
        "out": str(out),
        "out_names": names.value,
        "out_bytes": out.stat().st_size,
        "relative_difference": difference,
    }
    if json:
        typer.echo(format_json.dumps(report))
    else:
        _print(report)


def _formed(model: FastViT, names: Names, fold: bool, unfold: bool, images: list[str] | None) -> FastViT:
    """`model` in the form asked for."""
    import copy

    from fastvit.models.forms import KINDS, form_of
    from fastvit.models.overparam import overparameterize
    from fastvit.models.reparam import fuse_children, reparameterize

    if unfold:
        return overparameterize(model, _pictures(model, images) if images else None)
    if not fold:
        return model
    if names is Names.fastvit:
        return reparameterize(model)
    if form_of(model) == "unfused":  # keep the norms and scales that the others' fused form has
        model = copy.deepcopy(model)
        fuse_children(model, KINDS["partial"])
    return model


def _pictures(model: FastViT, images: list[str]) -> Tensor:
    import torch

    from fastvit.images.io import find_images, read_image

    height, width = model.preprocess.size
    found = find_images(images)
    number = min(len(found), max(16, CALIBRATION // (height * width)))
    chosen = [found[index * len(found) // number] for index in range(number)]  # from all folders
    return torch.stack([model.preprocess(read_image(name)) for name in chosen])


def _difference(given: FastViT, written: FastViT) -> float:
    """The largest difference between the outputs of what was read and of what was written, relative to the largest."""
    import torch

    size = [min(edge, 256) for edge in given.pretrained_cfg["input_size"][1:]]
    noise = torch.randn(1, given.in_chans, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = given(noise.to(next(given.parameters()).dtype)).double()
        differ = written(noise.to(next(written.parameters()).dtype)).double() - expected
    return float(differ.abs().max() / expected.abs().max())


def _report(weights: Weights, given: FastViT, written: FastViT) -> dict[str, Any]:
    from fastvit.models.forms import form_of

    found = weights.recognised
    return {
        "source": weights.source,
        "variant": weights.variant,
        "twins": [name for name in found.variants if name != weights.variant],
        "names": found.naming,
        "prefix": found.prefix,
        "form": weights.form,
        "tensors": len(given.state_dict()) - found.projection,
        "other_tensors": found.others,
        "parameters": _count(given),
        "num_classes": given.num_classes,
        "embeds": given.config.embeds and given.num_classes == given.config.num_classes,
        "license": given.pretrained_cfg.get("license"),
        "out_form": form_of(written),
        "out_parameters": _count(written),
    }


def _count(model: FastViT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _print(report: dict[str, Any]) -> None:
    twins = f" (or {', '.join(report['twins'])}, of the same shapes)" if report["twins"] else ""
    others = f", beside {report['other_tensors']:,} that are not the encoder's" if report["other_tensors"] else ""
    outputs = "channels of embedding" if report["embeds"] else "classes"
    rows = {
        "read": report["source"],
        "network": report["variant"] + twins,
        "names": report["names"] + (f", under {report['prefix']}" if report["prefix"] else ""),
        "form": f"{report['form']}, {report['parameters'] / 1e6:.2f} M parameters",
        "tensors": f"{report['tensors']:,}{others}",
        "head": f"{report['num_classes']:,} {outputs}" if report["num_classes"] else "none",
        "licence": report["license"] or "not said",
        "written": f"{report['out']}, {report['out_bytes'] / 1e6:.1f} MB",
        "its names": report["out_names"],
        "its form": f"{report['out_form']}, {report['out_parameters'] / 1e6:.2f} M parameters",
        "difference": f"{report['relative_difference']:.1e} of the largest output, on noise",
    }
    for name, value in rows.items():
        typer.echo(f"{name:<11} {value}")
