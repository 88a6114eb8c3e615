"""FastViTHD and other towers of vision language models, and the accuracies that FastVLM's authors published with them.

The accuracies are those of arXiv:2412.13303, figure 1a, read off the figure: the mean of GQA, TextVQA, POPE, DocVQA
and SEED-Bench, of the recipe of LLaVA-1.5 with Qwen2-0.5B.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Tower:
    """A vision encoder, and what runs it."""

    name: str  # in tables
    source: str  # our variant, or timm's name
    runs: str  # "eager" and "openvino" are ours; "twin" is timm's model of our weights, "timm" any other of timm's
    reduction: int  # pixels between the positions that it gives
    channels: int  # that each has

    def tokens(self, size: int) -> int:
        """How many of an image of that height and width."""
        return (size // self.reduction) ** 2


EAGER = Tower("FastViTHD", "fastvithd", "eager", 64, 3072)
OPENVINO = Tower("FastViTHD, OpenVINO", "fastvithd", "openvino", 64, 3072)
TWIN = Tower("mci3 of timm", "fastvithd", "twin", 64, 3072)
FASTVITHD = (EAGER, OPENVINO, TWIN)
CONVNEXT = Tower("ConvNeXt-L", "convnext_large.fb_in22k_ft_in1k", "timm", 32, 1536)
VIT = Tower("ViT-L/14", "vit_large_patch14_clip_336.openai", "timm", 14, 1024)
SIGLIP = Tower("SO400M/14", "vit_so400m_patch14_siglip_384.webli", "timm", 14, 1152)
BESIDE: dict[int, tuple[tuple[Tower, int], ...]] = {  # FastViTHD's size: who is raced there
    256: ((VIT, 336),),
    512: ((CONVNEXT, 320), (CONVNEXT, 512)),
    768: ((CONVNEXT, 768),),
    1024: ((CONVNEXT, 1024), (SIGLIP, 384)),
    1536: ((CONVNEXT, 1536),),
}


class Published(NamedTuple):
    """A point of the paper's figure 1a."""

    milliseconds: float  # to the first token, on its machine: an M1 Max, the tower on its neural engine
    accuracy: float  # mean of five benchmarks, %


PUBLISHED = {
    ("FastViTHD", 256): Published(32.2, 48.4),
    ("FastViTHD", 512): Published(50.2, 52.5),
    ("FastViTHD", 768): Published(96.0, 54.5),
    ("FastViTHD", 1024): Published(166.9, 55.9),
    ("ConvNeXt-L", 320): Published(63.3, 49.0),
    ("ConvNeXt-L", 512): Published(120.6, 52.2),
    ("ConvNeXt-L", 768): Published(292.6, 54.4),
    ("ConvNeXt-L", 1024): Published(942.3, 55.3),
    ("ViT-L/14", 336): Published(255.7, 47.3),
    ("SO400M/14", 384): Published(535.3, 55.5),
}


class Point(NamedTuple):
    """A tower at a size."""

    tower: Tower
    size: int

    @property
    def key(self) -> str:
        return f"{self.tower.name}@{self.size}"

    @property
    def published(self) -> Published | None:
        name = EAGER.name if self.tower in FASTVITHD else self.tower.name
        return PUBLISHED.get((name, self.size))


def entered(size: int) -> list[Point]:
    """Who is raced with FastViTHD at that size, itself first."""
    return [*(Point(tower, size) for tower in FASTVITHD), *(Point(*beside) for beside in BESIDE[size])]
