"""A model's card, README.md beside its weights: what it is, what was measured of it, and how it is loaded.

Nothing is claimed that was not measured: counts are counted, differences are differences of outputs, and accuracy is
what an evaluation counted.
"""

from typing import Any

import torch

from ..evaluation.metrics import Metrics
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.flops import multiply_adds
from ..models.forms import form_of
from ..models.reparam import reparameterize
from ..utils.copies import duplicate
from ..utils.numerics import Error
from ..utils.text import display_name, some
from ..weights.catalog import CHECKPOINTS

PROBED = 128  # pixels, high and wide, of the noise on which both forms are compared
SHOWN = 20  # names of classes
# The Hub's identifiers of licences that models of this family may have; another is "other", with its name and link.
LICENSES = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "agpl-3.0", "unlicense", "apple-amlr"}
LICENSES |= {"apple-ascl", "openrail", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
_CARD = """---
{header}
---

# {title}

{about}
{measured}
## How it is loaded

With fastvit:

```python
import fastvit

model = fastvit.load("{where}"){last}
```
{others}"""
_MEASURED = """
## Measured

On {images:,} images{of}, by `fastvit.evaluate`:

{rows}
"""
_TIMM = """
With [timm](https://github.com/huggingface/pytorch-image-models){condition}:

```python
import timm
from PIL import Image

model = timm.create_model("{where}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
output = model(transform(Image.open("image.jpg").convert("RGB"))[None])
```
"""
_LACKS = ", which lacks this architecture until `fastvit.register_timm()` is called"


def model_card(model: FastViT, where: str, names: str, metrics: Metrics | None = None, dataset: str = "") -> str:
    """The text of README.md.

    Args:
        model: what it is about, which stays as it is.
        where: how others load it: "hf-hub:USER/NAME" or "local-dir:FOLDER".
        names: whose names the weights have.
        metrics: an evaluation's, if there was one.
        dataset: what its data is called.

    Raises:
        ValueError: the metrics are of a model with other classes.
    """
    if metrics is not None and metrics.num_classes != model.num_classes:
        raise ValueError(f"metrics are of {metrics.num_classes} classes, and the model has {model.num_classes}")
    title, reads = where.partition(":")[2].partition("@")[0], model.in_chans == 3
    timms = names == "timm" and model.pretrained_cfg["architecture"] in CONFIGS
    of_images = 'outputs = model(model.preprocess.read(["image.jpg"]))'
    last = 'print(fastvit.predict(model, "image.jpg"))' if classifies(model) else of_images
    condition = _LACKS if model.pretrained_cfg["architecture"] == "fastvithd" else ""
    others = _TIMM.format(where=where, condition=condition) if reads else ""
    return _CARD.format(
        header=_front_matter(model, title.rpartition("/")[2], timms, metrics, dataset),
        title=title,
        about=_rows(_about(model)),
        measured="" if metrics is None else _measured(metrics, dataset),
        where=where,
        last=f"\n{last}" if reads else "",
        others=others if timms else "\nOther libraries do not read it: its weights have fastvit's names.\n",
    )


def classifies(model: FastViT) -> bool:
    """Whether its outputs are scores of classes."""
    return model.num_classes > 0 and not model.returns_embedding


def _rows(rows: dict[str, str]) -> str:
    """A table in Markdown."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _measured(metrics: Metrics, dataset: str) -> str:
    rows = {f"{name} accuracy": f"{percent:.2f} %" for name, percent in _accuracies(metrics).items()} | {
        "expected calibration error": f"{metrics.ece:.4f}",
        "negative log likelihood": f"{metrics.nll:.4f}",
    }
    of = f" of {_plain(dataset)}" if dataset else ""
    return _MEASURED.format(images=metrics.images, of=of, rows=_rows(rows))


def _front_matter(model: FastViT, name: str, timms: bool, metrics: Metrics | None, dataset: str) -> str:
    """What the Hub reads of a card, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-classification" if classifies(model) else "image-feature-extraction"
    results: Any = None
    if metrics is not None:
        results = [
            EvalResult(
                task_type=task,
                dataset_type="imagefolder",
                dataset_name=dataset or "unnamed",
                metric_type="accuracy",
                metric_name=f"{name} accuracy",
                metric_value=round(percent / 100, 6),
            )
            for name, percent in _accuracies(metrics).items()
        ]
    licence: dict[str, Any] = _license(model.pretrained_cfg.get("license"))
    data = ModelCardData(
        model_name=name,
        eval_results=results,
        library_name="timm" if timms else "fastvit",
        pipeline_tag=task,
        tags=[task, "fastvit", *(["timm", "transformers"] if timms else [])],
        ignore_metadata_errors=True,
        **licence,
    )
    return str(data.to_yaml())


def _accuracies(metrics: Metrics) -> dict[str, float]:
    """In percent; among five classes or fewer the best five are always right."""
    return {"top-1": metrics.top1} | ({"top-5": metrics.top5} if metrics.num_classes > 5 else {})


def _license(name: str | None) -> dict[str, str]:
    if name is None or name in LICENSES:
        return {"license": name} if name else {}
    link = next((row.license_url for row in CHECKPOINTS.values() if row.license == name), "")
    return {"license": "other", "license_name": name} | ({"license_link": link} if link else {})


def _about(model: FastViT) -> dict[str, str]:
    """What can be counted and measured of the model alone."""
    cfg, form, given = model.pretrained_cfg, form_of(model), duplicate(model).eval()
    fused = given if form == "fused" else reparameterize(given)
    size = (int(cfg["input_size"][1]), int(cfg["input_size"][2]))
    billions = f"{multiply_adds(fused, size) / 1e9:.2f} billion"
    counts = [sum(map(torch.numel, each.parameters())) for each in (model, fused)]
    rows = {
        "architecture": f"`{cfg['architecture']}`, {form}",
        "parameters": f"{counts[0]:,}" + ("" if form == "fused" else f", and {counts[1]:,} once reparameterized"),
        "multiply-adds": f"{billions} for {size[0]} x {size[1]} pixels, reparameterized",
        "images": _images(cfg, model.in_chans),
        "outputs": _outputs(model),
        "licence": _plain(cfg.get("license") or "not stated"),
    }
    if form != "fused":
        rows["reparameterization"] = _difference(given, fused)
    return rows


def _images(cfg: dict[str, Any], channels: int) -> str:
    height, width = cfg["input_size"][1:]
    kept = f"crop {cfg['crop_pct']:g} ({cfg['crop_mode']}), {cfg['interpolation']}"
    mean, std = (", ".join(f"{value:g}" for value in cfg[key]) for key in ("mean", "std"))
    return f"{channels} x {height} x {width}, {kept}, mean {mean}, std {std}"


def _outputs(model: FastViT) -> str:
    if not model.num_classes:
        return f"features of {model.head_hidden_size} channels, no classifier"
    if model.returns_embedding:
        return f"an embedding of {model.num_classes} numbers"
    names = model.pretrained_cfg.get("label_names")
    return f"{model.num_classes} classes" + (f": {_plain(some(names, SHOWN))}" if names else ", without names")


@torch.no_grad()
def _difference(given: FastViT, fused: FastViT) -> str:
    """How far the outputs of both forms are apart, on noise."""
    like, shape = next(given.parameters()), (1, given.in_chans, PROBED, PROBED)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
    error = Error.between(given(noise), fused(noise)).relative
    dtype = str(like.dtype).removeprefix("torch.")
    return f"changes outputs by {error:.0e} of the largest, in {dtype}, on noise of {PROBED} x {PROBED} pixels"


def _plain(text: str) -> str:
    """Text as Markdown shows it, in one line of a table."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+!|~" else c for c in display_name(text))
