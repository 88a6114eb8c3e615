"""Small CLIPs, and the goldens of whole ones: tests/goldens/clip."""

import gzip
import json
from dataclasses import dataclass
from typing import Any

import torch
from helpers.goldens import DATA, formula_state, input_images
from helpers.small import small
from torch import Tensor

from fastvit.clip import CLIP, TextConfig, TextEncoder
from fastvit.testing import randomize

GOLDENS = ("apple_mobileclip_s0", "apple_mobileclip_s1", "openclip_mobileclip2_s0", "openclip_mobileclip2_s3")


def small_text(**options: Any) -> TextEncoder:
    """A text encoder of two narrow layers, with random parameters and statistics, in eval mode."""
    return randomize(TextEncoder(TextConfig(**{"width": 64, "layers": 2} | options))).eval()


def small_clip(logit_scale: float = 2.5, **options: Any) -> CLIP:
    """A small FastViT beside it."""
    return CLIP(small("fastvit_mci0"), small_text(**options), logit_scale).eval()


@dataclass
class Golden:
    """What the published code computed."""

    state: dict[str, Tensor]  # in the names of the published file
    tokens: Tensor
    images: Tensor
    found: dict[str, Any]  # as the goldens have it


def golden(name: str) -> Golden:
    with gzip.open(DATA / "clip" / f"{name}.json.gz") as file:
        found: dict[str, Any] = json.load(file)
    tokens = torch.zeros(len(found["tokens"]), 77, dtype=torch.int64)
    for row, ids in enumerate(found["tokens"]):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return Golden(formula_state(found["schema"], found["gain"]), tokens, input_images(found["image"]["input"]), found)


def off(given: Tensor, expected: list[list[float]]) -> float:
    """The largest relative L2 error of the rows' first numbers."""
    wanted = torch.tensor(expected)
    given = given.detach()[:, : wanted.shape[1]].float()
    return float(((given - wanted).norm(dim=1) / wanted.norm(dim=1)).max())
