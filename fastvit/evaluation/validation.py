"""A model and labelled images -> how often, and how confidently, it is right."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from ..checkpoint import loaded
from ..data import Batch, LabelledImages, Source, check_range, open_source, validation_source
from ..images.inputs import check_fast_decoding
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..models.given import unwrapped
from ..models.reparam import reparameterize
from ..utils.copies import duplicate
from ..utils.devices import choose_device
from ..utils.numbers import check_whole
from ..utils.text import either
from ..weights.source import Source as WeightsSource
from .imagenet import CLASSES, Real, match_classes
from .metrics import Metrics

Run = Callable[[Tensor], Any]
Model = Callable[[Tensor], Any] | WeightsSource
Scoring = Literal["auto", "all", "data", "real"]
Progress = Callable[[int, int, float], None]


def evaluate(
    model: Model,
    data: str | Path | Source,
    *,
    split: str = "",
    cfg: Mapping[str, Any] | None = None,
    scoring: Scoring = "auto",
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    fast_decoding: bool = False,
    max_unreadable: int | None = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Count how many labelled images a model names correctly, and how well it knows when it does.

    Args:
        model: images (B, 3, H, W) -> logits (B, classes), left as it is; or what `fastvit.load` reads, run fused.
        data: a Source, or what `fastvit.data.NOTATION` lists; its classes are found among the model's by name.
        split: of `data`; by default val (or valid, validation, dev, eval) or test; the whole, if it has none.
        cfg: the `pretrained_cfg` of a model that has none: the keys of `Preprocess.to_cfg`, and "label_names".
        scoring: "all" classes can be predicted, or those of the "data" only, or all, by ImageNet's "real" labels
            (arXiv:2006.07159); "auto" is "data" where that has fewer classes, as timm evaluates ImageNet-A and -R.
        batch_size: images computed at a time.
        workers: processes that read images; with 0, threads of this one do.
        device: where to compute, "" for the fastest device; by default where the model is, or for a name the fastest.
        fast_decoding: decode large JPEGs at a reduced size.
        max_unreadable: how many images may be left out since they cannot be read; None for any number.
        progress: is given the images done, those in all, and top-1 so far in percent, after each batch.

    Raises:
        ValueError: options that do not go together, or a DataError: what is wrong with the data.

    Example:
        >>> import fastvit, tempfile
        >>> data = fastvit.testing.write_images(tempfile.mkdtemp(), ("cat", "ship"), val=2)
        >>> fastvit.evaluate("fastvit_t8.cifar10", data).images
        4
    """
    _check_numbers(batch_size, workers, max_unreadable)
    model, device = _fused(model, device)
    images, metrics = _opened(data, split, cfg := _cfg_of(model, cfg), scoring, fast_decoding)
    reading: dict[str, Any] = {"workers": workers, "pin": torch.cuda.is_available(), "max_unreadable": max_unreadable}
    with running(model, device, cfg, min(batch_size, len(images))) as logits_of:
        return _count(metrics, images.source, images.batches(batch_size, **reading), logits_of, progress)


def _check_numbers(batch_size: int, workers: int, max_unreadable: int | None) -> None:
    check_whole(1, batch_size=batch_size)
    check_whole(0, workers=workers, max_unreadable=0 if max_unreadable is None else max_unreadable)


def _fused(model: Model, device: str | torch.device | None) -> tuple[Run, str | torch.device | None]:
    """What computes, and where: what was loaded is fused, and computes on the fastest device."""
    given = loaded(model, Callable)  # type: ignore[arg-type]
    if given is unwrapped(model):
        return cast(Run, model), device  # in its wrapper, so that what was compiled runs
    return reparameterize(cast(FastViT, given), inplace=True), device or ""


def _cfg_of(model: Run, cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the model's classes and its preprocessing are, with "num_classes"."""
    if cfg is not None:
        return {"num_classes": len(cfg.get("label_names") or ())} | dict(cfg)
    model = unwrapped(model)
    cfg = getattr(model, "pretrained_cfg", None)
    if not cfg:
        raise ValueError(
            f"{type(model).__name__} has no pretrained_cfg that names its classes and preprocessing: give "
            "cfg=Preprocess(...).to_cfg() | {'label_names': [...]}"
        )
    if getattr(model, "returns_embedding", False):
        raise ValueError(
            "The model returns an embedding, not a score for each class: evaluate one with a classifier, which prompts "
            "make of the classes' names where the model has a text encoder."
        )
    return dict(cfg) | {"num_classes": getattr(model, "num_classes", cfg["num_classes"])}


def _opened(
    data: str | Path | Source, split: str, cfg: Mapping[str, Any], scoring: Scoring, fast_decoding: bool
) -> tuple[LabelledImages, Metrics]:
    """The images as bytes, each with its number in their source, and what counts the predictions for them."""
    num_classes, preprocess = cfg["num_classes"], Preprocess.from_cfg(cfg)
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring is {scoring!r}, expected {either(get_args(Scoring))}")
    if scoring == "real" and num_classes != CLASSES:
        raise ValueError(f"Real labels are of ImageNet's {CLASSES} classes, and the model has {num_classes}.")
    source = open_validation(data, split, num_classes=num_classes)
    indices = match_classes(source.classes, cfg)
    if scoring == "real":
        source = Real(source)
    among_data = scoring == "data" or (scoring == "auto" and len(indices) < num_classes)
    fast = preprocess if fast_decoding else None
    if fast:
        check_fast_decoding(map(source.name, range(len(source))))
    images = LabelledImages(source, preprocess.pixels, labels=range(len(source)), fast_for=fast)
    metrics = Metrics(source.classes, indices, num_classes, among_data)
    metrics.source = source.where
    return images, metrics


def open_validation(data: str | Path | Source, split: str = "", *, num_classes: int | None = None) -> Source:
    """The split of that name; by default val (or valid, validation, dev, eval) or test; the whole, if it has none.

    Raises:
        DataError: as `open_source` does, or a label is out of range, as where a test set's are secret.
    """
    if isinstance(data, Source):
        if split:
            raise ValueError(f"split is {split!r}, and the data is a Source, which is one split: leave it out")
        source = data
    elif split:
        source = open_source(data, split, num_classes=num_classes)
    else:
        source = validation_source(data, or_whole=True, num_classes=num_classes)
    check_range(source)
    return source


@contextmanager
def running(
    model: Run, device: str | torch.device | None, cfg: Mapping[str, Any], batch_size: int
) -> Iterator[Callable[[Tensor], Tensor]]:
    """(B, *size, 3) bytes -> the output (B, numbers) in float32 on the CPU, by the model in eval mode."""
    preprocess = Preprocess.from_cfg(cfg)
    like = torch.empty(0, dtype=torch.float32, device=getattr(model, "device", "cpu"))
    if isinstance(model, nn.Module):
        like = next(model.parameters(), like)
    chosen = like.device if device is None else choose_device(str(device))
    if isinstance(model, nn.Module) and chosen != like.device:
        model = duplicate(model).to(chosen)

    def output_of(pixels: Tensor) -> Tensor:
        output: Tensor = model(preprocess.normalized(pixels.to(chosen, non_blocking=True)).to(like.dtype))
        return output.float().cpu()

    with eval_mode(model) if isinstance(model, nn.Module) else nullcontext(), torch.inference_mode():
        if not isinstance(model, nn.Module):  # an engine is compiled and compared at its first call: before the clock
            output_of(torch.zeros(batch_size, *preprocess.size, 3, dtype=torch.uint8))
        yield output_of


def _count(
    metrics: Metrics,
    source: Source,
    read: Generator[Batch, None, None],
    logits_of: Callable[[Tensor], Tensor],
    progress: Progress | None,
) -> Metrics:
    """Count what batches of images, with their numbers in the source, are taken for."""
    labels, real = torch.as_tensor(source.labels), source if isinstance(source, Real) else None
    started, done = time.perf_counter(), 0
    with closing(read) as batches:
        for pixels, numbers, lost in batches:
            metrics.unreadable += lost
            done += len(numbers) + len(lost)
            if len(numbers):
                metrics.add(logits_of(pixels), labels[numbers], real.truth(numbers.tolist()) if real else None)
            if progress and metrics.images:
                progress(done, len(source), metrics.top1)
    metrics.seconds = time.perf_counter() - started
    metrics.without_real_labels = real.skipped if real else None
    return metrics


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, every module of `model` is in eval mode; afterwards each is in the mode that it was in.

    Example:
        >>> from torch import nn
        >>> from fastvit.evaluation.validation import eval_mode
        >>> model = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout())
        >>> with eval_mode(model):
        ...     print(model.training, model[1].training)
        False False
        >>> model.training, model[0].training, model[1].training
        (True, False, True)
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
