"""The checkpoints that can be had by name: a row for each, that says where it is, what it is and how good."""

import fnmatch
from collections import ChainMap
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..images.preprocess import Preprocess
from ..models.config import CONFIGS
from .labels import imagenet_names


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the Hugging Face Hub; by itself it is in no catalogue, and holds a whole model."""

    repository: str  # "owner/name"; "" for the weights that ship with the package
    revision: str = "main"  # a branch, a tag or a commit: a row has the commit where it could be verified
    files: tuple[str, ...] = ("model.safetensors", "model.safetensors.index.json")  # the weights: the first that it has
    size: int = 0  # bytes of that file at that commit; 0: unknown
    digest: str = ""  # its sha256; "": unknown

    def __str__(self) -> str:
        return self.repository


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Repository):
    """Weights that somebody published."""

    name: str  # that they are loaded by: variant and tag
    variant: str  # a key of CONFIGS
    tag: str  # what tells the weights of one variant apart; timm's where timm has them
    format: str
    fused: bool = False  # only the fused form was published
    num_classes: int  # or channels of the embedding
    classes: str  # "imagenet-1k", "cifar-10" or "embedding"
    preprocess: Preprocess
    accuracy: float  # percent
    metric: str
    source: str  # where that figure is published
    license: str
    license_url: str

    def __str__(self) -> str:
        return f"{self.name}: {self.repository}"


Published = TypeVar("Published", bound=Repository)

# What the checkpoints of a family have in common, as far as their rows do not say something else.
_FASTVIT = {
    "repository": "timm/{name}",
    "files": ("model.safetensors", "pytorch_model.bin"),
    "format": "timm, unfused",
    "classes": "imagenet-1k",
    "metric": "ImageNet-1k top-1",
    "source": "https://github.com/apple/ml-fastvit/blob/main/README.md",
    "license": "fastvit-license",
    "license_url": "https://github.com/apple/ml-fastvit/blob/main/LICENSE",
}
_MOBILECLIP = _FASTVIT | {
    "classes": "embedding",
    "metric": "ImageNet-1k zero-shot top-1, with the text encoder",
    "source": "https://github.com/apple/ml-mobileclip/blob/main/README.md",
    "license": "apple-amlr",
    "license_url": "https://huggingface.co/{apples}/blob/main/LICENSE",
}
_APPLES = {"repository": "{apples}"}
_TRAINED = _APPLES | {"format": "open_clip training checkpoint, timm's names, unfused"}
_TRAINING = _MOBILECLIP | _TRAINED  # there is no other file, and the text encoder is in it too
_CLIP = _MOBILECLIP | {
    "repository": "timm/{model}-OpenCLIP",
    "files": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "format": "open_clip, timm's names, unfused",
}
_FASTVLM = _MOBILECLIP | {
    "repository": "{apples}",
    "files": Repository.files,
    "format": "Apple, fused, the vision tower of a LLaVA",
    "fused": True,
    "metric": "TextVQA, of the whole FastVLM",
    "source": "https://huggingface.co/{apples}",
}
_OURS = {
    "repository": "",
    "files": ("fastvit_t8.cifar10.safetensors",),
    "format": "fastvit, unfused",
    "num_classes": 10,
    "classes": "cifar-10",
    "preprocess": replace(CONFIGS["fastvit_t8"].preprocess, size=(64, 64), crop=1.0),
    "metric": "CIFAR-10 top-1",
    "source": "weights/README.md",
    "license": "apache-2.0",
    "license_url": "https://www.apache.org/licenses/LICENSE-2.0",
}


def _row(name: str, accuracy: float, family: dict[str, Any], apples: str = "", **own: Any) -> Checkpoint:
    """`apples`: Apple's own repository, where the licence is."""
    variant, _, tag = name.partition(".")
    config = CONFIGS[variant]
    row: dict[str, Any] = {"num_classes": config.num_classes, "preprocess": config.preprocess} | family | own
    for key in ("repository", "source", "license_url"):
        row[key] = row[key].format(name=name, apples=apples, model=apples.partition("/")[2])
    return Checkpoint(name=name, variant=variant, tag=tag, accuracy=accuracy, **row)


# The first of each variant is its default, as in timm.
_ROWS = (
    # Apple's ml-fastvit; apple_dist were taught by a RegNetY-16GF too.
    _row("fastvit_t8.apple_in1k", 76.2, _FASTVIT),
    _row("fastvit_t8.apple_dist_in1k", 77.2, _FASTVIT),
    _row("fastvit_t12.apple_in1k", 79.3, _FASTVIT),
    _row("fastvit_t12.apple_dist_in1k", 80.3, _FASTVIT),
    _row("fastvit_s12.apple_in1k", 79.9, _FASTVIT),
    _row("fastvit_s12.apple_dist_in1k", 81.1, _FASTVIT),
    _row("fastvit_sa12.apple_in1k", 80.9, _FASTVIT),
    _row("fastvit_sa12.apple_dist_in1k", 81.9, _FASTVIT),
    _row("fastvit_sa24.apple_in1k", 82.7, _FASTVIT),
    _row("fastvit_sa24.apple_dist_in1k", 83.4, _FASTVIT),
    _row("fastvit_sa36.apple_in1k", 83.6, _FASTVIT),
    _row("fastvit_sa36.apple_dist_in1k", 84.2, _FASTVIT),
    _row("fastvit_ma36.apple_in1k", 83.9, _FASTVIT),
    _row("fastvit_ma36.apple_dist_in1k", 84.6, _FASTVIT),
    # The image encoders of MobileCLIP.
    _row(
        "fastvit_mci0.apple_mclip",
        67.8,
        _MOBILECLIP,
        "apple/MobileCLIP-S0",
        repository="apple/mobileclip_s0_timm",
        revision="7628ba98854d84a318027e036c582df9841c556b",
    ),
    _row("fastvit_mci1.apple_mclip", 72.6, _MOBILECLIP, "apple/MobileCLIP-S1", repository="apple/mobileclip_s1_timm"),
    _row("fastvit_mci2.apple_mclip", 74.4, _MOBILECLIP, "apple/MobileCLIP-S2", repository="apple/mobileclip_s2_timm"),
    _row("fastvit_mci3.apple_mclip", 78.3, _TRAINING, "apple/MobileCLIP-S3", files=("mobileclip_s3.pt",)),
    _row("fastvit_mci4.apple_mclip", 79.4, _TRAINING, "apple/MobileCLIP-S4", files=("mobileclip_s4.pt",)),
    # And of MobileCLIP2.
    _row(
        "fastvit_mci0.apple_mclip2_dfndr2b",
        71.5,
        _MOBILECLIP,
        "apple/MobileCLIP2-S0",
        revision="577a2e992da2c7ba7cadc2a490bcfadfb2d69bce",
        size=45_921_320,
    ),
    _row("fastvit_mci2.apple_mclip2_dfndr2b", 77.2, _MOBILECLIP, "apple/MobileCLIP2-S2"),
    _row("fastvit_mci3.apple_mclip2_dfndr2b", 80.7, _MOBILECLIP, "apple/MobileCLIP2-S3"),
    _row("fastvit_mci4.apple_mclip2_dfndr2b", 81.9, _MOBILECLIP, "apple/MobileCLIP2-S4"),
    # The vision towers of FastVLM.
    _row("fastvithd.apple_fastvlm_0.5b", 64.5, _FASTVLM, "apple/FastVLM-0.5B"),
    _row("fastvithd.apple_fastvlm_1.5b", 70.4, _FASTVLM, "apple/FastVLM-1.5B"),
    _row("fastvithd.apple_fastvlm_7b", 74.9, _FASTVLM, "apple/FastVLM-7B"),
    # Ours.
    _row("fastvit_t8.cifar10", 89.34, _OURS),
)

CHECKPOINTS: dict[str, Checkpoint] = {row.name: row for row in _ROWS}


def _clip(model: str, variant: str, accuracy: float, **own: Any) -> Checkpoint:
    name = model.lower().replace("-", "_")
    return replace(_row(f"{variant}.{name}", accuracy, _CLIP, f"apple/{model}", **own), name=name)


_CLIPS = (  # open_clip has no text encoder as the first's
    _clip("MobileCLIP-S0", "fastvit_mci0", 67.8, **_APPLES, files=("mobileclip_s0.pt",), format="Apple, unfused"),
    _clip("MobileCLIP-S1", "fastvit_mci1", 72.6, repository="{apples}-OpenCLIP"),
    _clip("MobileCLIP-S2", "fastvit_mci2", 74.4, repository="{apples}-OpenCLIP"),
    _clip("MobileCLIP-S3", "fastvit_mci3", 78.3, **_TRAINED, files=("mobileclip_s3.pt",)),
    _clip("MobileCLIP-S4", "fastvit_mci4", 79.4, **_TRAINED, files=("mobileclip_s4.pt",)),
    _clip("MobileCLIP2-S0", "fastvit_mci0", 71.5),
    _clip("MobileCLIP2-S2", "fastvit_mci2", 77.2),
    _clip("MobileCLIP2-S3", "fastvit_mci3", 80.7),
    _clip("MobileCLIP2-S4", "fastvit_mci4", 81.9),
)

CLIPS = {row.name: row for row in _CLIPS}  # for `fastvit.clip.load`; `fastvit.load` takes the image encoder alone
PUBLISHED = ChainMap(CLIPS, CHECKPOINTS)  # in the order of the second, and then of the first

# Bytes of timm/NAME's model.safetensors by variant: unfused, float32, in timm's names, with its head, without metadata.
EXPECTED_SIZES = {
    "fastvit_t8": 16_266_976,
    "fastvit_t12": 30_442_024,
    "fastvit_s12": 38_121_584,
    "fastvit_sa12": 46_522_920,
    "fastvit_sa24": 86_553_584,
    "fastvit_sa36": 126_584_688,
    "fastvit_ma36": 176_808_584,
    "fastvit_mci0": 45_921_320,
    "fastvit_mci1": 86_691_768,
    "fastvit_mci2": 143_943_528,
    "fastvit_mci3": 501_786_056,
    "fastvit_mci4": 1_288_240_784,
}
METADATA = (0, 24, 32)  # bytes more, the last two where it says {"format": "pt"}; headers end at a multiple of 8


def list_models(filter: str = "", pretrained: bool = False) -> list[str]:
    """The models' names, for `create_model`; or those of published weights, for `load` too.

    Args:
        filter: a shell pattern such as "*mci*"; "" is all.
        pretrained: list weights, by their full names: variant and tag.

    Example:
        >>> import fastvit
        >>> fastvit.list_models("*_t*")
        ['fastvit_t8', 'fastvit_t12']
        >>> fastvit.list_models("fastvit_t8", pretrained=True)
        ['fastvit_t8.apple_in1k', 'fastvit_t8.apple_dist_in1k', 'fastvit_t8.cifar10']
    """
    names = list(PUBLISHED) if pretrained else list(CONFIGS)
    return [name for name in names if fnmatch.filter((name, name.partition(".")[0]), filter or "*")]


def find(name: str) -> Checkpoint | None:
    """The checkpoint of this name, or of a variant's name alone the variant's first one; None if there is none.

    "name@revision" asks for that branch, tag or commit of its repository; what ships with the package has none.
    """
    name, _, revision = name.partition("@")
    row = PUBLISHED.get(name) or next((row for row in CHECKPOINTS.values() if row.variant == name), None)
    if row is None or not revision:
        return row
    return pinned(row, revision) if row.repository else None


def variant_of(name: str) -> str:
    """What a name begins with, which may be no variant; of a whole CLIP's name its image encoder."""
    plain = name.partition("@")[0]
    return CLIPS[plain].variant if plain in CLIPS else plain.partition(".")[0]


def pinned(published: Published, revision: str) -> Published:
    """The same at another branch, tag or commit, of which no size and no digest is known; as it is for ""."""
    return replace(published, revision=revision, size=0, digest="") if revision else published


def cfg(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the catalogue knows for the `pretrained_cfg` of a model with these weights, in timm's keys."""
    return {
        **checkpoint.preprocess.to_cfg(),
        "architecture": checkpoint.variant,
        "tag": checkpoint.tag,
        "num_classes": checkpoint.num_classes,
        "license": checkpoint.license,
        "label_names": label_names(checkpoint),
        "hf_hub_id": checkpoint.repository,
    }


def label_names(checkpoint: Checkpoint) -> list[str] | None:
    """A short name for each class, no two the same; None for an embedding, and where the file has them itself."""
    return imagenet_names() if checkpoint.classes == "imagenet-1k" else None
