"""What is exported: the model as it is run, with what it says of itself; and what a format makes of it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from ..._version import __version__
from ...images.preprocess import SMALLEST, Preprocess, check_size
from ...models.fastvit import FastViT
from ...models.multiscale import MultiScaleEncoder
from ...models.reparam import reparameterize
from ..graph import AXES, TRACED, example, listed, output_names, traced
from ..lowering import lower

PIXELS = "RGB pixels from 0 to 255, of the size that the model is to see"
PREPARED = "as pretrained_cfg says, ((pixels / 255) - mean) / std"
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class ExportError(RuntimeError):
    """A file that could not be made, or that computes something else than the model: why, in one line."""


class Pipeline(nn.Module):
    """images (B, in_chans, H, W) in float32 -> what the model gives, in float32, whatever it computes in.

    With `preprocess` the images are pixels from 0 to 255, and with `softmax` the outputs are probabilities.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, dtype: torch.dtype, preprocess: Preprocess | None, softmax: bool):
        super().__init__()
        self.model = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
        self.dtype, self.preprocess, self.softmax = dtype, preprocess, softmax
        if preprocess:
            mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std))
            self.register_buffer("scale", (1 / (255 * std)).float().view(3, 1, 1))
            self.register_buffer("shift", (-mean / std).float().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """The one output, or the several."""
        # Not fused into the first convolution, whose border of zeros is one of the normalised images.
        if self.preprocess:
            images = images * self.scale + self.shift
        outputs = self.model(images if self.dtype == torch.float32 else images.to(self.dtype))
        return self._finished(outputs) if isinstance(outputs, Tensor) else [self._finished(one) for one in outputs]

    def _finished(self, output: Tensor) -> Tensor:
        if self.dtype != torch.float32:  # where it is, even a conversion that does nothing would stand in the graph
            output = output.float()
        return output.softmax(1) if self.softmax else output


class Deployed:
    """A model on its way into a file: fused, in two forms, as it is run and as it is compared with.

    Attributes:
        reference: eager and in float32, what the file is compared with.
        lowered: what is written.
        preprocess: what is done inside the file, if anything.
        softmax: whether it gives probabilities.
        usual_size: (height, width) that the weights are for.
        size: the same, fixed; None for any.
        in_chans: channels of the images.
        dtype: "float32" or "float16".
        outputs: their names.
        metadata: what every format holds.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: FastViT | FeatureGetterNet | MultiScaleEncoder,
        with_preprocessing: bool,
        size: tuple[int, int] | None,
        dtype: str,
        fixed_size: bool,
    ) -> None:
        """Check the arguments, copy and fuse.

        Raises:
            ValueError: another dtype or size; no FastViT, or one in train mode; with preprocessing, one for other than
                three channels.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}, expected {' or '.join(DTYPES)}")
        if size is not None:
            check_size(size, "input_size")
        inner = next((module for module in model.modules() if isinstance(module, FastViT)), None)
        if inner is None:
            raise ValueError(f"expected a FastViT, not a {type(model).__name__}")
        self.usual_size: tuple[int, int] = tuple(inner.pretrained_cfg["input_size"][1:])
        self.size = size or (self.usual_size if fixed_size else None)
        self.dtype, self.in_chans = dtype, inner.in_chans
        self.preprocess = Preprocess.from_cfg(inner.pretrained_cfg) if with_preprocessing else None
        plain = copy.deepcopy(model).cpu().float()
        self.lowered = lower(plain)
        self.reference = reparameterize(plain, inplace=True)
        outputs = listed(self.reference(example(self.reference, 1, SMALLEST, SMALLEST)))
        self.outputs = output_names(model, len(outputs))
        self.softmax = with_preprocessing and self.outputs == ["logits"]
        if self.softmax:
            self.outputs = ["probabilities"]
        self.metadata = _metadata(inner, self.preprocess) | {"outputs": ", ".join(self.outputs)}

    def traced(self, *, dtype: str, one_image: bool = False) -> torch.export.ExportedProgram:
        """The model in that dtype as torch's graph; for one image at a time if so asked."""
        batch, height, width = TRACED
        free = set(AXES)
        if one_image:
            batch, free = 1, free - {0}
        if self.size:
            (height, width), free = self.size, free - {2, 3}
        pipeline = Pipeline(self.lowered, DTYPES[dtype], self.preprocess, self.softmax).eval()
        return traced(pipeline, example(self.reference, batch, height, width), sorted(free))

    def images(self, batch: int, height: int, width: int) -> Tensor:
        """Something to compare outputs on: noise, of whole numbers from 0 to 255 for pixels."""
        noise = example(self.reference, batch, height, width)
        return (noise * 64 + 128).round().clamp(0, 255) if self.preprocess else noise

    def expected(self, images: Tensor) -> list[Tensor]:
        """What eager torch gives."""
        if self.preprocess:
            mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.preprocess.mean, self.preprocess.std))
            images = (images / 255 - mean) / std
        outputs = listed(self.reference(images))
        return [output.softmax(1) for output in outputs] if self.softmax else outputs


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as its own runtime, or the nearest that there is here, reads it."""

    run: Callable[[Tensor], list[Tensor]]
    operations: Counter[str]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file."""

    name: str
    extra: str  # of fastvit's, which brings the packages
    packages: tuple[str, ...]  # that are needed to write and to check one
    write: Callable[[Deployed, Path], None]
    open: Callable[[Path], Opened]
    dtype: str = "float32"  # unless another is asked for
    one_image: bool = False  # at a time
    fixed_size: bool = False
    companion: str = ""  # suffix of a second file beside it


def _metadata(model: FastViT, preprocess: Preprocess | None) -> dict[str, str]:
    """What every format holds, as strings."""
    cfg = model.pretrained_cfg | {"num_classes": model.num_classes}
    return {
        "library": f"fastvit {__version__}",
        "variant": cfg.get("architecture") or type(model).__name__,
        "form": "fused",
        "pretrained_cfg": json.dumps(cfg),
        "label_names": json.dumps(cfg.get("label_names") or []),
        "license": cfg.get("license") or "unknown",
        "input": f"images: {PIXELS if preprocess else PREPARED}",
    }
