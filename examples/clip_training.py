"""Locked image tuning: a text encoder learns to read out what a trained image encoder gives."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from clip_captions import Captions
from torch import Tensor
from torch.nn import functional as F

import fastvit
from fastvit.clip import CLIP, TextConfig, TextEncoder
from fastvit.clip.model import LARGEST_SCALE
from fastvit.data import Source
from fastvit.embedding import read_embeddings

ENCODER = "fastvit_t8.cifar10"
LENGTH = 32  # tokens of a text: captions have 11 at most, and up to 12 more around them
CAPTIONS = 8  # of each class in a step
RATE = 1e-3  # the highest learning rate
ROWS = 5000  # images in each file of features: a kill loses no more
Report = Callable[..., None]  # title, done, total, loss


def make_clip(seed: int) -> CLIP:
    """The encoder, fused, whose embedding is its pooled features, and a random text encoder of two layers."""
    image = fastvit.reparameterize(fastvit.load(ENCODER))
    channels = image.num_features
    image.reset_classifier(channels)
    image.config = replace(image.config, num_classes=channels, embeds=True, preprocess=image.preprocess)
    with torch.no_grad():
        image.get_classifier().weight.copy_(torch.eye(channels))
        image.get_classifier().bias.zero_()
    torch.manual_seed(seed)
    text = TextEncoder(TextConfig(width=128, layers=2, embedding=channels, length=LENGTH))
    return CLIP(image.requires_grad_(False), text).eval()  # without dropout, training is the same in either mode


def class_features(folder: Path, images: Source, report: Report) -> list[Tensor]:
    """Of each class its images' embeddings (N, channels), of unit length, computed once and kept in the folder."""
    progress = partial(report, "features of training images")
    fastvit.embed(ENCODER, images, folder, dtype="float16", normalize=True, rows=ROWS, progress=progress)
    kept = read_embeddings(folder)
    features, labels = torch.from_numpy(kept.features).float(), torch.from_numpy(kept.labels)
    return [features[labels == label] for label in range(len(kept.classes))]


def contrastive_loss(logits: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """CLIP's symmetric loss (arXiv:2103.00020, figure 3) of images and texts that share classes: 0 at best.

    An image belongs to all captions of its class and a caption to all images, as in UniCL (arXiv:2204.03610): the
    target is spread evenly over them, and the loss is the Kullback-Leibler divergence from it, in nats.

    Args:
        logits: (B, T) scaled cosines.
        images: (B) the images' classes.
        texts: (T) the texts' classes, of which each is among the images'.
    """
    same = (images[:, None] == texts).float()
    ways = ((logits, same), (logits.T, same.T))
    losses = [F.kl_div(x.log_softmax(1), y / y.sum(1, keepdim=True), reduction="batchmean") for x, y in ways]
    return (losses[0] + losses[1]) / 2


def train(
    clip: CLIP, captions: Captions, features: Sequence[Tensor], options: argparse.Namespace, report: Report
) -> list[float]:
    """The losses of all steps. A step takes as many images of each class, and as many captions."""
    parameters = [*clip.text.parameters(), clip.logit_scale]
    optimizer = torch.optim.Adam(parameters, RATE)
    count, classes = options.batch_size, torch.arange(len(features))
    labels, losses = (classes.repeat_interleave(count), classes.repeat_interleave(CAPTIONS)), list[float]()
    for step in range(options.steps):
        done = step / options.steps
        for group in optimizer.param_groups:  # a short rise, then half a cosine down
            group["lr"] = RATE * min(1, 0.1 + done / 0.05) * (1 + math.cos(math.pi * done)) / 2
        images = torch.cat([some[torch.randint(len(some), (count,))] for some in features])
        texts = F.normalize(clip.text(captions.draw(CAPTIONS)))
        loss = contrastive_loss(clip.logit_scale.exp().clamp(max=LARGEST_SCALE) * images @ texts.T, *labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report("training", step + 1, options.steps, losses[-1])
    return losses
