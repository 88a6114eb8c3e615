"""A name that nobody knows -> the names that may have been meant, the nearest first."""

import re

from ..models.config import CONFIGS
from ..utils.text import either
from .catalog import CHECKPOINTS

MOST = 3  # names that are offered
LANGUAGE_ONLY = "Apple's exports of FastVLM (-fp16, -int8, -int4) hold a language model, and the encoder as Core ML"
LONGEST = 300  # characters of a name that is looked at
_HUB = r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf[-_]hub:"
_LANGUAGE_MODEL = re.compile(r"(fastvlm[-_][\d.]+b)[-_](?:fp16|int8|int4|4bit|8bit|bf16)")


def nearest(name: str) -> str:
    """What may have been meant, to stand after a semicolon; for an address what to do with it.

    Example:
        >>> from fastvit.weights.suggestion import nearest
        >>> nearest("apple/MobileCLIP2-S0")
        'did you mean fastvit_mci0.apple_mclip2_dfndr2b?'
    """
    given = name.strip().lower().partition("@")[0].replace("llava-fastvithd_", "fastvlm-")
    near = _near(given) if len(given) <= LONGEST else []
    if known := language_only(given):
        return known
    if re.match(r"https?://", given):
        near = [_published(known, given) for known in near[:1]]
        known = f", or load {either(near[:1])}, which is known by name" if near else ""
        return f"an address is not downloaded: download the file, and give its path{known}"
    return f"did you mean {either(near)}?" if near else "fastvit.list_models() and `fastvit models` have the names"


def language_only(name: str) -> str:
    """What to take instead of an export of Apple's that has no vision encoder; "" for another name."""
    exported = _LANGUAGE_MODEL.search(name[:LONGEST].lower())
    return f"{LANGUAGE_ONLY}: take {either(_near(exported[1]))}" if exported else ""


def _near(given: str) -> list[str]:
    """The names themselves, where only case, hyphens, owner or address differ, else the fewest changes away."""
    named = _others()
    tail = re.sub(_HUB, "", given).split("/resolve/")[0].split("/tree/")[0].split("/blob/")[0]
    last = tail.rpartition("/")[2]
    file = last.partition(".")[0] if re.search(r"\.(pt|pth|tar|zip|safetensors|bin|onnx)$", last) else last
    parts = [_plain(part) for part in (tail, last, file, f"fastvit{last}")]
    parts += [re.sub(r"(reparam|unfused|timm|openclip|distilled|stage\d|\d?e?main)$", "", part) for part in parts]
    for part in filter(None, parts):
        if part in named:
            return named[part]
    wanted, variant = parts[1], _plain(last.partition(".")[0])
    if "." in last and variant in named and named[variant][0] in CONFIGS:  # another tag
        tags = [row.name for row in CHECKPOINTS.values() if row.variant == named[variant][0]]
        return sorted(tags, key=lambda tag: _changes(wanted, _plain(tag)))[:MOST]
    listed = {_plain(known): known for known in (*CONFIGS, *CHECKPOINTS)}
    away = {known: _changes(wanted, plain) for plain, known in listed.items()}
    close = sorted((count, abs(len(known) - len(given)), known) for known, count in away.items())
    return [known for count, _, known in close if count <= max(2, min(len(wanted), len(known)) // 4)][:MOST]


def _published(name: str, address: str) -> str:
    """The checkpoint of a variant that lies at such an address of Apple's."""
    return next(
        (
            known
            for tag in ("apple_dist_in1k",) * ("distilled" in address) + ("apple_in1k",)
            if (known := f"{name}.{tag}") in CHECKPOINTS
        ),
        name,
    )


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


def _changes(a: str, b: str) -> int:
    """Levenshtein's distance: letters to be put in, taken out or exchanged."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a[:100], 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
