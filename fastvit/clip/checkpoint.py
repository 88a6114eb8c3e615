"""CLIPs from and to checkpoints: an image encoder, a text encoder and a scale in one file."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import check_target, from_weights
from ..models.config import Config
from ..models.fastvit import FastViT
from ..utils.text import either
from ..weights import formats
from ..weights.catalog import CLIPS, find
from ..weights.detect import detect
from ..weights.folder_config import speaks_of
from ..weights.formats import read_json
from ..weights.header import header
from ..weights.read import read_tensors
from ..weights.savable import named_state, sound_numbers
from ..weights.source import Source, resolve
from ..weights.tensors import Tensors, WeightsError, as_float, in_one_line, plainly_named
from .model import CLIP, require_clip, scale_of
from .naming import FoundText, find_text, read_text, renamed, text_form
from .text import HEAD_CHANNELS, MLP_RATIO, TextConfig

SCALE = "logit_scale"
FILES = {  # by whose names: the image encoder's, and what precedes these and the text encoder's
    "fastvit": ("fastvit", "image.", "text."),
    "open_clip": ("timm", "visual.trunk.", "text."),
    "apple": ("apple", "image_encoder.model.", "text_encoder."),
}
TWIN = "fastvit_mci3"  # beside a text encoder is never fastvithd, whose weights look alike
OPEN_CLIP_CONFIG = "open_clip_config.json"
_VITS = re.compile(r"mobileclip2?[-_](b|b[-_]lt|l[-_]14)([-_.]\w+)*", re.IGNORECASE)
NONE = f"has no text encoder that shares its embedding: take {either(CLIPS)}"
VIT = "its image encoder is a plain ViT and no FastViT, as those of MobileCLIP-B and -L-14 are: open_clip runs it"


def list_models() -> list[str]:
    """The names that `fastvit.clip.load` takes.

    Example:
        >>> import fastvit
        >>> fastvit.clip.list_models()[:2]
        ['mobileclip_s0', 'mobileclip_s1']
    """
    return list(CLIPS)


def load(source: Source, *, causal: bool | None = None) -> CLIP:
    """The CLIP in a checkpoint of anybody's names, in eval mode and in the form that the checkpoint has.

    Apple's files, open_clip's, training checkpoints of either, and ours; unfused, fused as Apple's code does it, or
    fused by `fastvit.reparameterize`. Half precision becomes float32.

    Args:
        source: what `fastvit.load` reads: a name of `list_models()`, a file, a folder, a repository, a state dict.
        causal: whether each token attends to those before it alone, which no tensor tells. None is what our header or
            open_clip_config.json beside the weights says, else False, as of every MobileCLIP with a FastViT.

    Raises:
        fastvit.WeightsError: the source is missing, damaged, not finite, has no text encoder, or is of another model.

    Example:
        >>> import fastvit, tempfile
        >>> from fastvit.clip import CLIP, TextConfig, TextEncoder
        >>> clip = CLIP(fastvit.create_model("fastvit_mci0"), TextEncoder(TextConfig(width=64, layers=1)))
        >>> path = f"{tempfile.mkdtemp()}/clip.safetensors"
        >>> fastvit.clip.save(clip, path)
        >>> fastvit.clip.load(path).text.config.layers
        1
    """
    return opened(source, causal).clip()


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose text encoder is read when it is asked for: labels that were encoded before need none.

    Attributes:
        image: the image encoder, in eval mode.
        logit_scale: the logarithm of the scale.
        tensors: those of the file.
        found: the text encoder in it.
        file: what tells the file apart, before it was read; None where there is no single one.
        given: names of tensors that are not the image encoder's.
        causal: as in `TextConfig`.
    """

    image: FastViT
    logit_scale: float
    tensors: Tensors
    found: FoundText
    given: frozenset[str]
    causal: bool
    file: tuple[object, ...] | None

    @property
    def scale(self) -> float:
        """What cosines are multiplied by."""
        return scale_of(self.logit_scale)

    def clip(self) -> CLIP:
        """All of it, in eval mode; a WeightsError where the text encoder cannot be used."""
        text = read_text(self.tensors, self.found, self.given, self.causal)
        return CLIP(self.image, text, self.logit_scale).eval()


def file_of(tensors: Tensors) -> tuple[object, ...] | None:
    """What tells a file apart, and changes with what is in it, whatever time it is given; None without a single one."""
    path = Path(tensors.source)
    if path.suffix == ".json" or not path.is_file():
        return None
    found = path.stat()
    return str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def opened(source: Source, causal: bool | None = None) -> Opened:
    """For arguments and errors see `load`; nothing of the text encoder is read but names and shapes."""
    name = str(source).rpartition("/")[2] if isinstance(source, str | Path) else ""
    here = os.path.exists(str(source)) if isinstance(source, str | Path) else True
    if isinstance(source, str) and not here:  # as open_clip writes it, perhaps with a revision
        model, at, revision = source.partition("@")
        known = model.lower().replace("-", "_")
        source = f"{known}{at}{revision}" if known in CLIPS else source
    row = find(source) if isinstance(source, str) else None
    whole = [each for each in CLIPS.values() if row and each.license_url == row.license_url]  # of the same model
    if row and not whole:  # known before it is downloaded
        raise WeightsError(f"{source}: {NONE}")
    if row and row not in whole and row.files != whole[0].files:
        raise WeightsError(f"{source}: is an image encoder alone: take {whole[0].name}, which has its text encoder too")
    if _VITS.fullmatch(name) and not here:
        raise WeightsError(f"{source}: {VIT}")

    def reader(
        tensors: Tensors, variant: str | Config | None, catalogue: Mapping[str, Any], *, path: Path | None = None
    ) -> Opened:
        file, tensors = file_of(tensors), plainly_named(tensors)
        found, scale = _text_in(tensors), _scale_in(tensors)
        if variant is None and TWIN in (seen := detect(tensors)).variants and not seen.cfg:
            variant = TWIN
        weights = read_tensors(tensors, variant, catalogue, path=path)
        prefix = weights.detected.prefix
        given = frozenset(name for name in tensors.names if name != scale and not (prefix and name.startswith(prefix)))
        image, channels = from_weights(weights), found.config.embedding
        if image.num_classes != channels or not image.config.embeds:
            gives = f"gives {image.num_classes} numbers" if image.num_classes else "has no projection"
            raise WeightsError(
                f"{tensors.source}: its image encoder, a {weights.variant}, {gives}, and its text encoder an embedding "
                f"of {channels}: expected the same embedding"
            )
        follows = _is_causal(tensors, found, path) if causal is None else causal
        return Opened(image, as_float(tensors, scale).item(), tensors, found, given, follows, file)

    return resolve(source, None, reader)


def _text_in(tensors: Tensors) -> FoundText:
    """The text encoder; a WeightsError where there is none, that says what to take instead."""
    if (found := find_text(tensors)) is None:
        raise WeightsError(f"{tensors.source}: {NONE}")
    if any(".patch_embed.proj." in name or name.endswith("visual.conv1.weight") for name in tensors.names):
        raise WeightsError(f"{tensors.source}: {VIT}")
    return found


def _scale_in(tensors: Tensors) -> str:
    """The name of the scale; a WeightsError where it is not there or no number."""
    names = [name for name in tensors.names if name == SCALE or name.endswith(f".{SCALE}")]
    if len(names) != 1:
        raise WeightsError(f"{tensors.source}: has {len(names) or 'no'} {SCALE}, expected one")
    if any(edge != 1 for edge in tensors.shape(names[0])):
        raise WeightsError(f"{tensors.source}: {SCALE} is of shape {tensors.shape(names[0])[:9]}, expected one number")
    if not tensors.read(names[0]).isfinite().all():
        raise WeightsError(f"{tensors.source}: {SCALE} is not finite")
    return names[0]


def _is_causal(tensors: Tensors, found: FoundText, path: Path | None) -> bool:
    """What our header says, or open_clip's config beside the weights."""
    if "text" in tensors.metadata:
        with in_one_line(tensors.source, "its header is not one that fastvit.clip.save writes"):
            return bool(json.loads(tensors.metadata["text"])["causal"])
    if path is None or not speaks_of(path):
        return False
    file = (path if path.is_dir() else path.parent) / OPEN_CLIP_CONFIG
    if not file.is_file():
        return False
    with in_one_line(file, "is no config that can be followed"):
        model = read_json(file, "cannot be read as the weights' config").get("model_cfg") or {}
        text = model.get("text_cfg")
        if text is None:
            return False
        expected = _as_open_clip_says(found.config)
        odd = {key: value for key, value in text.items() if key not in FREE and expected.get(key, _NOT_OURS) != value}
        odd |= {"quick_gelu": True} if model.get("quick_gelu") else {}
        if odd := {key: value for key, value in odd.items() if value not in (None, False, {})}:
            raise WeightsError(f"{file}: says {odd}, which is another text encoder than the one beside it")
        return not text.get("no_causal_mask", False)


_NOT_OURS = object()
FREE = {"no_causal_mask", "hf_tokenizer_name", "tokenizer_kwargs", "pad_id", "eos_id", "output_tokens"}


def _as_open_clip_says(config: TextConfig) -> dict[str, Any]:
    """The keys of open_clip's text_cfg, and what an encoder of this size has for them."""
    sizes = {"context_length": config.length, "vocab_size": config.vocabulary, "width": config.width}
    more = {"heads": config.width // HEAD_CHANNELS, "layers": config.layers, "mlp_ratio": MLP_RATIO}
    return sizes | more | {"embed_dim": config.embedding, "pool_type": "argmax", "proj_type": "linear"}


def save(clip: CLIP, path: str | Path, *, names: str = "fastvit", dtype: torch.dtype | None = None) -> None:
    """Write image encoder, text encoder and scale into one file, all or nothing, for `load` and `fastvit.load`.

    Args:
        clip: with encoders in any form, on any device.
        path: .safetensors, which says the preprocessing in its header; or in others' names .pt, .pth, .bin or .tar.
        names: "fastvit"; "open_clip", which reads it strictly, but for the text encoder of MobileCLIP-S0; or "apple".
        dtype: torch.float16, bfloat16, float32 or float64, for the weights of linear layers and convolutions.

    Raises:
        ValueError: names, path and dtype that do not go together, or an encoder that no file can say.
        OSError: the file cannot be written.
    """
    path, clip = Path(path), require_clip(clip)
    if names not in FILES:
        raise ValueError(f"names is {names!r}, expected one of {', '.join(FILES)}")
    theirs, image, text = FILES[names]
    check_target(path, theirs, dtype)
    form, state = named_state(clip.image, theirs, dtype)
    text_form(clip.text)
    words = sound_numbers(dict(renamed(clip.text, names)), dtype)
    scale = clip.logit_scale.detach().float().cpu()
    if not scale.isfinite():
        raise ValueError(f"logit_scale is {scale.item()}: nothing was written")
    tensors = {f"{image}{name}": tensor for name, tensor in state.items()}
    tensors |= {f"{text}{name}": tensor for name, tensor in words.items()}
    about = header(clip.image, form) | {"text": json.dumps(asdict(clip.text.config))}
    formats.write(path, {**tensors, SCALE: scale}, about)
