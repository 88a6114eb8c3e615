"""Timm's validation of timm's model with our weights: what its validation script does, of timm's own parts."""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from helpers.small import timms_small
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.utils import AverageMeter, accuracy

import fastvit


def timms_model(model: fastvit.FastViT, path: Path) -> torch.nn.Module:
    """Timm's fastvit_t8 with the weights of `model`, by way of a file in timm's names."""
    fastvit.save(model, path, names="timm")
    theirs = timms_small("fastvit_t8", num_classes=model.num_classes)
    timm.models.load_checkpoint(theirs, str(path), strict=True)
    return theirs


def timms_loader(cfg: dict[str, object], folder: Path) -> tuple[Sequence[str], torch.utils.data.DataLoader]:
    """The files' names and batches of them, preprocessed as `cfg` says."""
    dataset = create_dataset("", str(folder), split="validation")
    config = resolve_data_config({}, pretrained_cfg=cfg)
    keys = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    options = {key: config[key] for key in keys}
    loader = create_loader(dataset, batch_size=16, use_prefetcher=False, num_workers=0, pin_memory=False, **options)
    return dataset.filenames(basename=True), loader


@torch.inference_mode()
def timms_numbers(
    model: torch.nn.Module, cfg: dict[str, object], folder: Path, valid_labels: list[int] | None = None
) -> tuple[float, float, float]:
    """Top-1 and top-5 in percent, and the mean cross entropy."""
    top1, top5, losses = AverageMeter(), AverageMeter(), AverageMeter()
    for images, target in timms_loader(cfg, folder)[1]:
        output = model(images)
        if valid_labels is not None:
            output = output[:, valid_labels]
        losses.update(torch.nn.functional.cross_entropy(output, target).item(), len(target))
        for meter, value in zip((top1, top5), accuracy(output, target, topk=(1, 5)), strict=True):
            meter.update(value.item(), len(target))
    return top1.avg, top5.avg, losses.avg
