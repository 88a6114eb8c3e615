"""Models with their published accuracy on ImageNet-1k: timm's results/results-imagenet.csv, at the size given.

All by the same evaluation, of weights that timm publishes under that tag. FastViT's are here twice, as are its weights:
trained on labels alone, and distilled.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of timm's results."""

    family: str
    name: str  # timm's
    tag: str  # of the weights
    size: int
    top1: float
    distilled: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}@{self.size}"


def _rows(family: str, *rows: tuple[str, str, int, float], distilled: bool = False) -> tuple[Published, ...]:
    return tuple(Published(family, *row, distilled=distilled) for row in rows)


FASTVIT = (
    *_rows(
        "FastViT",
        ("fastvit_t8", "apple_in1k", 256, 76.184),
        ("fastvit_t12", "apple_in1k", 256, 79.276),
        ("fastvit_s12", "apple_in1k", 256, 79.882),
        ("fastvit_sa12", "apple_in1k", 256, 80.846),
        ("fastvit_sa24", "apple_in1k", 256, 82.706),
        ("fastvit_sa36", "apple_in1k", 256, 83.502),
        ("fastvit_ma36", "apple_in1k", 256, 83.884),
    ),
    *_rows(
        "FastViT",
        ("fastvit_t8", "apple_dist_in1k", 256, 77.170),
        ("fastvit_t12", "apple_dist_in1k", 256, 80.364),
        ("fastvit_s12", "apple_dist_in1k", 256, 81.074),
        ("fastvit_sa12", "apple_dist_in1k", 256, 81.838),
        ("fastvit_sa24", "apple_dist_in1k", 256, 83.368),
        ("fastvit_sa36", "apple_dist_in1k", 256, 84.028),
        ("fastvit_ma36", "apple_dist_in1k", 256, 84.608),
        distilled=True,
    ),
)
PEERS = (
    *_rows(
        "MobileNetV4",
        ("mobilenetv4_conv_medium", "e500_r256_in1k", 256, 79.916),
        ("mobilenetv4_conv_medium", "e500_r256_in1k", 320, 80.890),
        ("mobilenetv4_hybrid_medium", "ix_e550_r256_in1k", 256, 81.478),
        ("mobilenetv4_hybrid_medium", "ix_e550_r256_in1k", 320, 82.500),
        ("mobilenetv4_conv_large", "e600_r384_in1k", 384, 82.974),
        ("mobilenetv4_conv_large", "e600_r384_in1k", 448, 83.418),
    ),
    *_rows(
        "RepViT",
        ("repvit_m0_9", "dist_450e_in1k", 224, 79.058),
        ("repvit_m1_0", "dist_450e_in1k", 224, 80.430),
        ("repvit_m1_1", "dist_450e_in1k", 224, 81.314),
        ("repvit_m1_5", "dist_450e_in1k", 224, 82.520),
        ("repvit_m2_3", "dist_450e_in1k", 224, 83.746),
        distilled=True,
    ),
    *_rows(
        "EfficientViT",
        ("efficientvit_b1", "r256_in1k", 256, 79.734),
        ("efficientvit_b1", "r288_in1k", 288, 80.322),
        ("efficientvit_b2", "r256_in1k", 256, 82.712),
        ("efficientvit_b2", "r288_in1k", 288, 83.078),
        ("efficientvit_b3", "r256_in1k", 256, 83.782),
    ),
    *_rows(
        "ConvNeXt",
        ("convnext_pico", "d1_in1k", 224, 79.516),
        ("convnext_nano", "d1h_in1k", 224, 80.762),
        ("convnext_tiny", "fb_in1k", 224, 82.066),
        ("convnext_small", "fb_in1k", 224, 83.144),
        ("convnext_base", "fb_in1k", 224, 83.838),
    ),
    *_rows(
        "EfficientFormerV2",
        ("efficientformerv2_s1", "snap_dist_in1k", 224, 79.684),
        ("efficientformerv2_s2", "snap_dist_in1k", 224, 82.156),
        ("efficientformerv2_l", "snap_dist_in1k", 224, 83.642),
        distilled=True,
    ),
    *_rows(
        "MobileOne",
        ("mobileone_s2", "apple_in1k", 224, 77.504),
        ("mobileone_s3", "apple_in1k", 224, 78.002),
        ("mobileone_s4", "apple_in1k", 224, 79.446),
    ),
)
