"""A name that nobody knows -> the names that may have been meant, the nearest first."""

import re

from ..models.config import CONFIGS
from ..utils.text import close, either
from .catalog import CHECKPOINTS, CLIPS

LANGUAGE_ONLY = "Apple's exports of FastVLM (-fp16, -int8, -int4) hold a language model, and the encoder as Core ML"
LONGEST_GIVEN = 300  # characters of a name that is looked at
_HUB = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf[-_]hub:"
_LANGUAGE_MODEL = re.compile(r"(fastvlm[-_][\d.]+b)[-_](?:fp16|int8|int4|4bit|8bit|bf16)")


def nearest_names(name: str) -> str:
    """What may have been meant, to stand after a semicolon; for an address what to do with it.

    Example:
        >>> from fastvit.weights.suggestion import nearest_names
        >>> nearest_names("apple/MobileCLIP2-S0")
        'did you mean fastvit_mci0.apple_mclip2_dfndr2b?'
    """
    given = _normal(name)
    if known := language_only(given):
        return known
    if re.match(r"https?://", given):
        near = _near(given)
        known = f", or load {_published(near[0], given)}, which is known by name" if near else ""
        return f"an address is not downloaded: download the file, and give its path{known}"
    return meant(given) or "fastvit.list_models() and `fastvit models` have the names"


def meant(name: str) -> str:
    """The question whether some name that is near was meant; "" if none is."""
    near = _near(_normal(name))
    return f"did you mean {either(near)}?" if near else ""


def language_only(name: str) -> str:
    """What to take instead of an export of Apple's that has no vision encoder; "" for another name."""
    exported = _LANGUAGE_MODEL.search(name[:LONGEST_GIVEN].lower())
    return f"{LANGUAGE_ONLY}: take {either(_near(exported[1]))}" if exported else ""


def _normal(name: str) -> str:
    """Without a revision, and as the Hub has Apple's own names."""
    return name.strip().lower().partition("@")[0].replace("llava-fastvithd_", "fastvlm-")


def _near(given: str) -> list[str]:
    """The names themselves, where only case, hyphens, owner or address differ, else the fewest changes away."""
    if len(given) > LONGEST_GIVEN:
        return []
    named = _others()
    tail = re.sub(_HUB, "", given).split("/resolve/")[0].split("/tree/")[0].split("/blob/")[0]
    last = tail.rpartition("/")[2]
    file = last.partition(".")[0] if re.search(r"\.(pt|pth|tar|zip|safetensors|bin|onnx)$", last) else last
    parts = [_plain(part) for part in (tail, last, file, f"fastvit{last}")]
    parts += [re.sub(r"(reparam|unfused|timm|openclip|distilled|stage\d|\d?e?main)$", "", part) for part in parts]
    for part in filter(None, parts):
        if part in named:
            return named[part]
    variant = _plain(last.partition(".")[0])
    if "." in last and variant in named and named[variant][0] in CONFIGS:  # another tag
        return close([row.name for row in CHECKPOINTS.values() if row.variant == named[variant][0]], last, least=0)
    return close([*CONFIGS, *CHECKPOINTS, *CLIPS], last)


def _published(name: str, address: str) -> str:
    """The checkpoint of a variant that lies at such an address of Apple's."""
    tags = ("apple_dist_in1k", "apple_in1k") if "distilled" in address else ("apple_in1k",)
    return next((known for tag in tags if (known := f"{name}.{tag}") in CHECKPOINTS), name)


def _others() -> dict[str, list[str]]:
    """What else the checkpoints are called, as plain text: by their repositories, and as Apple calls the models."""
    named: dict[str, list[str]] = {}
    for variant in CONFIGS:
        named[_plain(variant)] = [variant]
    for row in CHECKPOINTS.values():
        apples = row.license_url.partition("huggingface.co/")[2].partition("/blob/")[0]
        for other in (row.name, row.repository, row.repository.rpartition("/")[2], apples, apples.rpartition("/")[2]):
            names = named.setdefault(_plain(other), [])
            if row.name not in names and not (names and _plain(names[0]) == _plain(other)):
                names.append(row.name)
    named.pop("", None)
    return named


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
