"""A text encoder as another runtime's file: tokens (B, 77) of int32 -> embedding (B, D)."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._version import __version__
from ..deploy.exporters.deployed import DTYPES
from ..deploy.exporters.exporter import ExportReport, check_target, write
from ..deploy.graph import traced
from ..deploy.lowering import lower
from ..models.given import require_eval_mode
from ..utils.copies import duplicate
from ..weights.source import Source
from .checkpoint import load
from .model import CLIP, require_clip
from .tokens import END, START

INPUT = "tokens: ids of CLIP's vocabulary, {start}, the text's, {end}, and zeros up to {length}, in int32"
LENGTHS = (2, 77, 20, 3, 5, 40, 76, 11)  # of the texts that outputs are compared on, with start and end
BATCHES = (1, 1, 3, 3)  # how these are dealt out


class TextPipeline(nn.Module):
    """tokens (B, length) -> embedding (B, D) in float32, whatever it computes in; of unit length, if so asked."""

    def __init__(self, text: nn.Module, dtype: torch.dtype, normalize: bool):
        super().__init__()
        self.text = text if dtype == torch.float32 else duplicate(text).to(dtype)
        self.normalize = normalize

    def forward(self, tokens: Tensor) -> Tensor:
        """The embedding."""
        embedding: Tensor = self.text(tokens)
        if embedding.dtype != torch.float32:  # else even a conversion that does nothing is in the graph
            embedding = embedding.float()
        return F.normalize(embedding) if self.normalize else embedding


class DeployedText:
    """A text encoder on its way into a file, as `deploy.exporters.deployed.Subject` has it."""

    input = "tokens"

    def __init__(self, clip: CLIP, dtype: str, free: Collection[int], normalize: bool) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}, expected {' or '.join(DTYPES)}")
        require_eval_mode(clip.text, "export a text encoder")
        self.dtype, self.normalize, self.outputs = dtype, normalize, ["embedding"]
        self.free = sorted(set(free) & {0})
        self.reference = TextPipeline(duplicate(clip.text).cpu().float(), torch.float32, normalize).eval()
        self.lowered: nn.Module = lower(self.reference.text)
        self.config = clip.text.config
        cfg = clip.image.pretrained_cfg
        self.metadata = {
            "library": f"fastvit {__version__}",
            "variant": f"text encoder beside {cfg.get('architecture') or 'a FastViT'}",
            "form": "fused",
            "text": json.dumps(asdict(self.config)),
            "logit_scale": json.dumps(clip.logit_scale.item()),
            "license": cfg.get("license") or "unknown",
            "input": INPUT.format(start=START, end=END, length=self.config.length),
            "outputs": "embedding" + (", of unit length" if normalize else ""),
        }

    def traced(self, dtype: str) -> torch.export.ExportedProgram:
        """The encoder in that dtype as torch's graph."""
        pipeline = TextPipeline(self.lowered, DTYPES[dtype], self.normalize).eval()
        batch = 2 if self.free else 1
        return traced(pipeline, torch.cat(self.cases())[:batch], self.free)

    def cases(self) -> list[Tensor]:
        """Texts of 2 to 77 tokens, alone and by three, as far as there may be several."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.zeros(len(LENGTHS), self.config.length, dtype=torch.int32)
        for row, given in zip(tokens, LENGTHS, strict=True):
            length = min(given, self.config.length)
            inner = torch.randint(1, min(START, self.config.vocabulary - 2), (length - 2,), generator=generator)
            row[:length] = torch.cat([torch.tensor([START]), inner, torch.tensor([END])])
        return list(torch.split(tokens, list(BATCHES) if self.free else [1] * len(LENGTHS)))

    @torch.no_grad()
    def expected(self, given: Tensor) -> list[Tensor]:
        """What eager torch gives."""
        return [self.reference(given)]

    def coreml_input(self) -> Any:
        """One text: of any number CoreML would be many times slower."""
        import coremltools
        import numpy

        return coremltools.TensorType(name=self.input, shape=(1, self.config.length), dtype=numpy.int32)


def export_text(
    clip: CLIP | Source, path: str | Path, *, dtype: str | None = None, normalize: bool = False
) -> ExportReport:
    """Write a CLIP's text encoder, fused, as another runtime's file, which must first give what eager torch gives.

    The suffix says which, as for `fastvit.export`, which writes the image encoder. The file takes "tokens", as
    `fastvit.clip.tokenize` gives them, in int32, of any number of texts (.mlpackage, .pte: one), and gives "embedding".
    Both are compared on texts of 2 to 77 tokens, to 1e-4 of the largest number (1e-2 in float16).

    Args:
        clip: in eval mode, left untouched; or what `fastvit.clip.load` reads.
        path: .onnx, .pt2, .xml, .mlpackage or .pte; replaced if it exists.
        dtype: "float32" or "float16", of weights and arithmetic (OpenVINO: of weights). None: float16 for CoreML alone.
        normalize: give embeddings of unit length.

    Raises:
        ValueError: train mode, another suffix or dtype, or a folder that is not there.
        ExportError: the file could not be made, or gives something else; nothing was written.
        ImportError: a package is not installed.
        OSError: it cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> from fastvit.clip import CLIP, TextConfig, TextEncoder, export_text
        >>> clip = CLIP(fastvit.create_model("fastvit_mci0"), TextEncoder(TextConfig(width=64, layers=1))).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_text(clip, f"{folder}/text.pt2")
        >>> report.outputs, report.checks[0].shape
        (('embedding',), (1, 77))
    """
    format = check_target(path)
    whole = require_clip(clip) if isinstance(clip, nn.Module) else load(clip)
    return write(lambda: DeployedText(whole, dtype or format.dtype, format.free, normalize), format, path)
