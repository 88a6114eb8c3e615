"""`--recipe`: a row for each, with what differs from `Recipe`'s defaults and where it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What a recipe is for, where its numbers are from, and what differs from `Recipe`'s defaults."""

    about: str
    source: str
    options: dict[str, Any]


RECIPES = {
    "fastvit_paper": Preset(
        about="ImageNet from random weights",
        source="arXiv:2303.14189, section 4.1; train.py and the README of ml-fastvit: T8, T12, S12 with mixup 0.2 and "
        "no drop path, SA12 and SA24 with drop path 0.1, SA36 0.2, MA36 0.35 and mixup 0.8; color jitter 0.4 is given "
        "there too, but does nothing beside RandAugment",
        options={
            "epochs": 310,
            "batch_size": 1024,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-5,
            "warmup_learning_rate": 1e-6,
            "warmup_epochs": 5.0,
            "cooldown_epochs": 10.0,
            "weight_decay": 0.05,
            "auto_augment": "rand-m9-mstd0.5-mmax9-inc1",
            "random_erasing": 0.25,
            "mixup": 0.2,
            "cutmix": 1.0,
            "label_smoothing": 0.1,
            "ema_decay": 0.9995,
        },
    ),
    "finetune": Preset(
        about="a trained model on other images",
        source="arXiv:2303.14189, section 4.1 (30 epochs, learning rate 5e-5 for a batch of 512, weight decay 1e-8), "
        "without mixup and cutmix, and with the layer decay of ConvNeXt's fine-tuning (arXiv:2201.03545, table 6)",
        options={
            "epochs": 30,
            "batch_size": 512,
            "learning_rate": 5e-5,
            "min_learning_rate": 1e-6,
            "warmup_epochs": 0.0,
            "weight_decay": 1e-8,
            "layer_decay": 0.8,
            "mixup": 0.0,
            "cutmix": 0.0,
            "ema_decay": 0.9998,
            "crop": 1.0,
        },
    ),
    "small_data": Preset(
        about="some thousand small images",
        source="crops, RandAugment and sizes of weights/README.md, with cutmix (arXiv:1905.04899)",
        options={
            "size": 64,
            "start_size": 48,
            "crop": 1.0,
            "epochs": 30,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "warmup_epochs": 1.0,
            "clip_gradient": 1.0,
            "smallest_area": 0.4,
            "auto_augment": "rand-m9-n1-mstd0.5-mmax9-inc1",
            "mixup": 0.0,
            "cutmix": 1.0,
            "label_smoothing": 0.1,
            "ema_decay": 0.998,
        },
    ),
}
