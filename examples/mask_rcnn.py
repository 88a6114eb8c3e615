"""Mask R-CNN (arXiv:1703.06870) on a FastViT: finds discs, squares and triangles in images drawn for it.

    python examples/mask_rcnn.py --out runs/mask_rcnn                     # a few minutes on two processor cores
    python examples/mask_rcnn.py --out runs/hd --model fastvithd --quick  # five stages, down to 1/64, random weights

What there is to see is `Pyramid`: the encoder's maps of 1/4, 1/8, 1/16 and 1/32 of the image, and 1/64 where it has
five stages, from `create_model(..., features_only=True)`, through torchvision's FeaturePyramidNetwork, as the backbone
of torchvision's MaskRCNN. The rest is a detector as anybody's. Trained, it is reparameterized, and finds the same.

OUT receives detections.png, with what is found in images that were not trained on, and results.json. Needs
pip install "fastvit[train]".
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from console import Progress, check_least, make_folder, status_of
from shapes import SHAPES, Drawings, Target
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import fastvit
from fastvit.utils.atomic import replacing
from fastvit.utils.extras import require

TRAINING, VALIDATION = 0, 1  # seeds of images
SURE = 0.5  # a detection's score that counts
QUICK = {"steps": 4, "test_images": 4, "batch_size": 2}


class Pyramid(nn.Module):
    """images (B, 3, H, W) -> {"0": (B, channels, H / 4, W / 4), "1": half of it, ...}: a backbone for torchvision.

    Sizes are rounded up. The last map, "pool", is every second position of the one before it.
    """

    def __init__(self, encoder: Any, channels: int) -> None:
        super().__init__()
        self.encoder = encoder  # a model with features_only: a list of maps
        self.fpn = FeaturePyramidNetwork(encoder.feature_info.channels(), channels, LastLevelMaxPool())
        self.out_channels = channels
        reductions = encoder.feature_info.reduction()
        self.reductions = [*reductions, 2 * reductions[-1]]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn({str(index): x for index, x in enumerate(self.encoder(images))})
        return maps

    def train(self, mode: bool = True) -> "Pyramid":
        """The encoder's norms keep the statistics that they have: those of a few images are no good."""
        super().train(mode)
        self.encoder.eval()
        return self


def detector(encoder: Any, size: int, channels: int = 64) -> MaskRCNN:
    """A Mask R-CNN for images whose shorter edge becomes `size`, of the three shapes."""
    backbone = Pyramid(encoder, channels)
    sizes = [(4 * reduction,) for reduction in backbone.reductions]
    anchors = AnchorGenerator(sizes, [(0.5, 1.0, 2.0)] * len(sizes))
    levels = [str(level) for level in range(len(sizes) - 1)]  # all but "pool"
    preprocess = fastvit.Preprocess.from_cfg(encoder.pretrained_cfg)
    model = MaskRCNN(
        backbone,
        num_classes=1 + len(SHAPES),
        min_size=size,
        max_size=2 * size,
        image_mean=preprocess.mean,  # torchvision normalizes, with what the weights want
        image_std=preprocess.std,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
        rpn_pre_nms_top_n_train=300,
        box_batch_size_per_image=32,
        box_detections_per_img=20,
    )
    # Narrower than torchvision's, which take most of the time on a processor.
    model.roi_heads.mask_head = MaskRCNNHeads(channels, (channels,) * 4, 1)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(channels, channels, 1 + len(SHAPES))
    return model


def batches(drawings: Drawings, batch_size: int) -> DataLoader[Any]:
    """(images, targets), in order."""
    return DataLoader(drawings, batch_size, collate_fn=lambda samples: tuple(zip(*samples, strict=True)))


def train(model: MaskRCNN, options: argparse.Namespace, report: Progress) -> list[float]:
    """The losses of all steps. The encoder learns at a tenth of the rate of what starts anew."""
    model.train()
    encoder = list(model.backbone.encoder.parameters())
    known = set(map(id, encoder))
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    rates = [1e-4, 1e-3]
    groups = [{"params": params, "lr": rate} for params, rate in zip((encoder, others), rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, options.steps, pct_start=0.1)
    losses: list[float] = []
    drawings = Drawings(options.size, options.steps * options.batch_size, TRAINING, options.seed)
    for images, targets in batches(drawings, options.batch_size):
        losses.append(step(model, optimizer, images, targets))
        schedule.step()
        report("training", len(losses), options.steps, losses[-1])
    return losses


def step(
    model: MaskRCNN, optimizer: torch.optim.Optimizer, images: Sequence[Tensor], targets: Sequence[Target]
) -> float:
    """One training step -> the sum of Mask R-CNN's five losses."""
    loss = sum(model(list(images), list(targets)).values())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def detect(model: MaskRCNN, images: Sequence[Tensor]) -> list[Target]:
    """Images (3, H, W) -> of each the boxes (N, 4), labels (N), scores (N), all above `SURE`, and masks (N, H, W)."""
    detections = []
    for detection in model.eval()(list(images)):
        sure = {name: value[detection["scores"] > SURE] for name, value in detection.items()}
        detections.append(sure | {"masks": sure["masks"][:, 0] > 0.5})
    return detections


def matched(detection: Target, target: Target) -> int:
    """How many shapes have a detection of their class whose mask covers them: intersection over union above a half."""
    found, shapes = detection["masks"].flatten(1).float(), target["masks"].flatten(1).float()
    both = shapes @ found.T
    union = shapes.sum(1)[:, None] + found.sum(1) - both
    same = target["labels"][:, None] == detection["labels"]
    return int((same & (both > union / 2)).any(1).sum())  # one detection cannot be the half of two shapes


def largest_difference(some: Sequence[Target], others: Sequence[Target]) -> float:
    """Of the corners, in pixels; infinite where one finds what the other does not."""
    worst = 0.0
    for one, other in zip(some, others, strict=True):
        if one["labels"].tolist() != other["labels"].tolist():
            return math.inf
        worst = max([worst, *(one["boxes"] - other["boxes"]).abs().flatten().tolist()])
    return worst


def draw(images: Sequence[Tensor], detections: Sequence[Target]) -> Any:
    """A dozen images, with the outlines, boxes and names of what was found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    for panel, image, detection in zip(figure.subplots(3, 4).flat, images, detections, strict=False):
        panel.imshow(image.permute(1, 2, 0).numpy())
        for mask in detection["masks"]:
            panel.contour(mask.float().numpy(), [0.5], colors="yellow", linewidths=1)
        for (left, top, right, bottom), label, score in zip(
            detection["boxes"].tolist(), detection["labels"], detection["scores"], strict=True
        ):
            xs, ys = (left, right, right, left, left), (top, top, bottom, bottom, top)
            panel.plot([x - 0.5 for x in xs], [y - 0.5 for y in ys], "r", linewidth=1)
            about = {"color": "white", "fontsize": 7, "bbox": {"color": "red", "pad": 1, "alpha": 0.7}}
            panel.text(left, top, f"{SHAPES[label - 1]} {score:.2f}", **about)
    for panel in figure.axes:
        panel.axis("off")
    return figure


def measured(targets: Sequence[Target], unfused: Sequence[Target], fused: Sequence[Target]) -> dict[str, Any]:
    """What results.json says of what was found: in percent, of the fused detector."""
    shapes = sum(len(target["labels"]) for target in targets)
    count = sum(len(detection["labels"]) for detection in fused)
    hits = sum(map(matched, fused, targets))
    return {
        "shapes": shapes,
        "found": 100 * hits / shapes,
        "wrong": 100 * (1 - hits / count) if count else 0.0,
        "fused_differs_by": largest_difference(unfused, fused),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, detect, reparameterize, detect again -> what results.json says."""
    require("train", "matplotlib", what="this example")
    make_folder(options.out)
    torch.manual_seed(options.seed)
    encoder = fastvit.create_model(options.model, pretrained="." in options.model, features_only=True)
    model = detector(encoder, options.size)
    report = Progress()
    images: list[Tensor] = []
    targets: list[Target] = []
    before: list[Target] = []
    after: list[Target] = []
    with report.bar:
        losses = train(model, options, report)
        fused = fastvit.reparameterize(model.eval())
        validation = Drawings(options.size, options.test_images, VALIDATION)
        for some, theirs in batches(validation, options.batch_size):
            images += some
            targets += theirs
            before += detect(model, some)
            after += detect(fused, some)
            report("validation images", len(images), options.test_images)
    settings = {name: getattr(options, name) for name in ("model", "steps", "batch_size", "size", "seed")}
    results = measured(targets, before, after) | {"losses": losses, "settings": settings}
    with replacing(options.out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    with replacing(options.out / "detections.png") as path:
        draw(images, after).savefig(path, dpi=100)
    return results


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/mask_rcnn"), help="receives all that is written (%(default)s)")
    add("--model", default="fastvit_t8.cifar10", help="with a tag its weights, else random ones (%(default)s)")
    add("--steps", type=int, default=1000, help="training steps (%(default)s)")
    add("--batch-size", type=int, default=4, help="images a step (%(default)s)")
    add("--size", type=int, default=128, help="of the images, in pixels (%(default)s)")
    add("--test-images", type=int, default=100, help="images to measure with (%(default)s)")
    add("--seed", type=int, default=0, help="of weights and images (%(default)s)")
    add("--quick", action="store_true", help="a miniature, to see it run")
    add("--json", action="store_true", help="print the results as JSON")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    check_least(parser, options, steps=1, batch_size=1, size=64, test_images=1, seed=0)
    return options


def show(options: argparse.Namespace) -> None:
    results = run(options)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'shapes found':<32}{results['found']:8.1f} % of {results['shapes']}")
    print(f"{'detections that are no shape':<32}{results['wrong']:8.1f} %")
    print(f"{'fused, a corner differs by':<32}{results['fused_differs_by']:8.1e} pixels at most")
    print(options.out / "detections.png")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return status_of(lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
