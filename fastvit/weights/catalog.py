"""The checkpoints that can be had by name: a row for each, that says where it is, what it is and how good."""

import fnmatch
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..images.preprocess import Preprocess
from ..models.config import CONFIGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights that somebody published."""

    variant: str  # a key of CONFIGS
    tag: str  # what tells the weights of one variant apart; timm's where timm has them
    repository: str  # on the Hugging Face Hub; "" for the weights that ship with the package
    files: tuple[str, ...]  # where the weights are: the first of these that the repository has
    revision: str = "main"  # no commit could be verified when this was written, so none is pinned
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

    @property
    def name(self) -> str:
        """The name that they are loaded by: variant and tag."""
        return f"{self.variant}.{self.tag}"


_RESEARCH = "apple-amlr"
_ZERO_SHOT = "ImageNet-1k zero-shot top-1, with the text encoder"


def _fastvit(variant: str, tag: str, accuracy: float) -> Checkpoint:
    return Checkpoint(
        variant=variant,
        tag=tag,
        repository=f"timm/{variant}.{tag}",
        files=("model.safetensors", "pytorch_model.bin"),
        format="timm, unfused",
        num_classes=CONFIGS[variant].num_classes,
        classes="imagenet-1k",
        preprocess=CONFIGS[variant].preprocess,
        accuracy=accuracy,
        metric="ImageNet-1k top-1",
        source="https://github.com/apple/ml-fastvit/blob/main/README.md",
        license="fastvit-license",
        license_url="https://github.com/apple/ml-fastvit/blob/main/LICENSE",
    )


def _mobileclip(variant: str, tag: str, repository: str, accuracy: float, family: str, file: str = "") -> Checkpoint:
    """`file`: that of an open_clip training checkpoint, where there is no other; the text encoder is in it too."""
    return Checkpoint(
        variant=variant,
        tag=tag,
        repository=repository,
        files=(file,) if file else ("model.safetensors", "pytorch_model.bin"),
        format="open_clip training checkpoint, timm's names, unfused" if file else "timm, unfused",
        num_classes=CONFIGS[variant].num_classes,
        classes="embedding",
        preprocess=CONFIGS[variant].preprocess,
        accuracy=accuracy,
        metric=_ZERO_SHOT,
        source="https://github.com/apple/ml-mobileclip/blob/main/README.md",
        license=_RESEARCH,
        license_url=f"https://huggingface.co/apple/{family}/blob/main/LICENSE",
    )


def _fastvlm(size: str, accuracy: float) -> Checkpoint:
    repository = f"apple/FastVLM-{size}"
    return Checkpoint(
        variant="fastvithd",
        tag=f"apple_fastvlm_{size.lower()}",
        repository=repository,
        files=("model.safetensors", "model.safetensors.index.json"),
        format="Apple, fused, the vision tower of a LLaVA",
        fused=True,
        num_classes=CONFIGS["fastvithd"].num_classes,
        classes="embedding",
        preprocess=CONFIGS["fastvithd"].preprocess,
        accuracy=accuracy,
        metric="TextVQA, of the whole FastVLM",
        source=f"https://huggingface.co/{repository}",
        license=_RESEARCH,
        license_url=f"https://huggingface.co/{repository}/blob/main/LICENSE",
    )


_S, _S2 = "MobileCLIP-S", "MobileCLIP2-S"  # the names of Apple's own repositories, where the licences are

# The first of each variant is its default, as in timm.
_ROWS = (
    # Apple's ml-fastvit; apple_dist were taught by a RegNetY-16GF too.
    _fastvit("fastvit_t8", "apple_in1k", 76.2),
    _fastvit("fastvit_t8", "apple_dist_in1k", 77.2),
    _fastvit("fastvit_t12", "apple_in1k", 79.3),
    _fastvit("fastvit_t12", "apple_dist_in1k", 80.3),
    _fastvit("fastvit_s12", "apple_in1k", 79.9),
    _fastvit("fastvit_s12", "apple_dist_in1k", 81.1),
    _fastvit("fastvit_sa12", "apple_in1k", 80.9),
    _fastvit("fastvit_sa12", "apple_dist_in1k", 81.9),
    _fastvit("fastvit_sa24", "apple_in1k", 82.7),
    _fastvit("fastvit_sa24", "apple_dist_in1k", 83.4),
    _fastvit("fastvit_sa36", "apple_in1k", 83.6),
    _fastvit("fastvit_sa36", "apple_dist_in1k", 84.2),
    _fastvit("fastvit_ma36", "apple_in1k", 83.9),
    _fastvit("fastvit_ma36", "apple_dist_in1k", 84.6),
    # The image encoders of MobileCLIP.
    _mobileclip("fastvit_mci0", "apple_mclip", "apple/mobileclip_s0_timm", 67.8, f"{_S}0"),
    _mobileclip("fastvit_mci1", "apple_mclip", "apple/mobileclip_s1_timm", 72.6, f"{_S}1"),
    _mobileclip("fastvit_mci2", "apple_mclip", "apple/mobileclip_s2_timm", 74.4, f"{_S}2"),
    _mobileclip("fastvit_mci3", "apple_mclip", "apple/MobileCLIP-S3", 78.3, f"{_S}3", "mobileclip_s3.pt"),
    _mobileclip("fastvit_mci4", "apple_mclip", "apple/MobileCLIP-S4", 79.4, f"{_S}4", "mobileclip_s4.pt"),
    # And of MobileCLIP2.
    _mobileclip("fastvit_mci0", "apple_mclip2_dfndr2b", "timm/fastvit_mci0.apple_mclip2_dfndr2b", 71.5, f"{_S2}0"),
    _mobileclip("fastvit_mci2", "apple_mclip2_dfndr2b", "timm/fastvit_mci2.apple_mclip2_dfndr2b", 77.2, f"{_S2}2"),
    _mobileclip("fastvit_mci3", "apple_mclip2_dfndr2b", "timm/fastvit_mci3.apple_mclip2_dfndr2b", 80.7, f"{_S2}3"),
    _mobileclip("fastvit_mci4", "apple_mclip2_dfndr2b", "timm/fastvit_mci4.apple_mclip2_dfndr2b", 81.9, f"{_S2}4"),
    # The vision towers of FastVLM.
    _fastvlm("0.5B", 64.5),
    _fastvlm("1.5B", 70.4),
    _fastvlm("7B", 74.9),
    # Ours.
    Checkpoint(
        variant="fastvit_t8",
        tag="cifar10",
        repository="",
        files=("fastvit_t8.cifar10.safetensors",),
        format="fastvit, unfused",
        num_classes=10,
        classes="cifar-10",
        preprocess=replace(CONFIGS["fastvit_t8"].preprocess, size=(64, 64), crop=1.0),
        accuracy=89.34,
        metric="CIFAR-10 top-1",
        source="weights/README.md",
        license="apache-2.0",
        license_url="https://www.apache.org/licenses/LICENSE-2.0",
    ),
)

CHECKPOINTS: dict[str, Checkpoint] = {row.name: row for row in _ROWS}


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
    names = list(CHECKPOINTS) if pretrained else list(CONFIGS)
    return [name for name in names if fnmatch.filter((name, name.partition(".")[0]), filter or "*")]


def find(name: str) -> Checkpoint | None:
    """The checkpoint of this name, or of a variant's name alone the variant's first one; None if there is none.

    "name@revision" asks for that branch, tag or commit of its repository.
    """
    name, _, revision = name.partition("@")
    row = CHECKPOINTS.get(name) or next((row for row in CHECKPOINTS.values() if row.variant == name), None)
    return replace(row, revision=revision) if row and revision else row


def bundled(name: str) -> Path:
    """Where a file that ships with the package is: in the installed package, or beside it in a checkout."""
    file = CHECKPOINTS[name].files[0]
    installed = Path(__file__).parent / file
    return installed if installed.exists() else Path(__file__).parents[2] / "weights" / file


def cfg(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the catalogue knows for the `pretrained_cfg` of a model with these weights, in timm's keys."""
    names = label_names(checkpoint)
    return {
        **checkpoint.preprocess.to_cfg(),
        "architecture": checkpoint.variant,
        "tag": checkpoint.tag,
        "num_classes": checkpoint.num_classes,
        "license": checkpoint.license,
        **({"label_names": names} if names else {}),
        **({"hf_hub_id": checkpoint.repository} if checkpoint.repository else {}),
    }


def label_names(checkpoint: Checkpoint) -> list[str] | None:
    """A short name for each class, no two the same; None for an embedding, and where the file has them itself.

    Those of ImageNet are the first of each class's synonyms in WordNet, with what it means where two would be the same.
    """
    if checkpoint.classes != "imagenet-1k":
        return None
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    details = [info.index_to_description(index, detailed=True) for index in range(info.num_classes())]
    synonyms, meanings = zip(*(text.split(": ", 1) for text in details), strict=True)
    short = [text.split(",")[0] for text in synonyms]
    count = Counter(short)
    return [
        name if count[name] == 1 else f"{name} ({textwrap.shorten(meaning, 32, placeholder='...')})"
        for name, meaning in zip(short, meanings, strict=True)
    ]
