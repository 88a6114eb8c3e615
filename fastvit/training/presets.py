"""`--recipe`: a row for each, with what differs from `Recipe`'s defaults and where it is from."""

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """What a recipe is for, where its numbers are from, and what differs from `Recipe`'s defaults."""

    about: str
    source: str
    options: dict[str, Any]


RECIPES = {
    "fastvit_paper": Preset(
        "ImageNet from random weights",
        "arXiv:2303.14189, section 4.1; train.py and the README of ml-fastvit: T8, T12, S12 with mixup 0.2 and no drop "
        "path, SA12 and SA24 with drop path 0.1, SA36 0.2, MA36 0.35 and mixup 0.8; color jitter 0.4 is given there "
        "too, but does nothing beside RandAugment",
        {
            "epochs": 310, "cooldown_epochs": 10.0, "warmup_epochs": 5.0, "batch_size": 1024, "weight_decay": 0.05,
            "learning_rate": 1e-3, "min_learning_rate": 1e-5, "warmup_learning_rate": 1e-6,
            "auto_augment": "rand-m9-mstd0.5-mmax9-inc1", "random_erasing": 0.25, "mixup": 0.2, "cutmix": 1.0,
            "label_smoothing": 0.1, "ema_decay": 0.9995,
        },
    ),
    "finetune": Preset(
        "a trained model on other images, also on few",
        "AdamW with weight decay 1e-8 and no mixing of images: arXiv:2303.14189, section 4.1; layer decay: ConvNeXt's "
        "fine-tuning (arXiv:2201.03545, table 6); the rest, as 10 epochs, frozen statistics of batch norms and mild "
        "crops alone, by benchmarks/finetune.py",
        {
            "epochs": 10, "warmup_epochs": 1.0, "batch_size": 32, "weight_decay": 1e-8, "layer_decay": 0.8,
            "head_factor": 10.0, "learning_rate": 3e-4, "smallest_area": 0.5, "auto_augment": "", "random_erasing": 0.0,
            "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.05, "freeze_batch_norm": True, "ema_decay": 0.9998,
        },
    ),
    "small_data": Preset(
        "some thousand small images",
        "crops, RandAugment and sizes of weights/README.md, with cutmix (arXiv:1905.04899)",
        {
            "size": 64, "start_size": 48, "crop": 1.0, "smallest_area": 0.4, "epochs": 30, "warmup_epochs": 1.0,
            "batch_size": 128, "learning_rate": 2e-3, "clip_gradient": 1.0,
            "auto_augment": "rand-m9-n1-mstd0.5-mmax9-inc1", "mixup": 0.0, "cutmix": 1.0, "label_smoothing": 0.1,
            "ema_decay": 0.998,
        },
    ),
}  # fmt: skip
