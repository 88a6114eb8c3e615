"""What is exported: the model as it is run, with what it says of itself."""

import json
from collections.abc import Callable, Collection
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..._version import __version__
from ...images.preprocess import SMALLEST, Preprocess, check_size
from ...models.fastvit import FastViT
from ...models.given import require_eval_mode, require_model, unwrapped
from ...utils.copies import duplicate
from ..graph import TRACED, example, output_names, traced
from ..lowering import listed, lower, unobserved

COMPARED = ((1, 32, 32), (2, 65, 97), (1, 96, 160))  # batch, height, width; at the first the last map has one position
LARGEST = 2048  # pixels high and wide; CoreML wants to be told
PIXELS = "RGB pixels from 0 to 255, of the size that the model is to see"
PREPARED = "as pretrained_cfg says, ((pixels / 255) - mean) / std"
Finish = Callable[[Tensor], Tensor]
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Pipeline(nn.Module):
    """images (B, in_chans, H, W) in float32 -> what the model gives, in float32, whatever it computes in.

    With `preprocess` the images are pixels from 0 to 255. `finish` is done to each output at last.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, preprocess: Preprocess | None, finish: Finish | None):
        super().__init__()
        self.model = model if dtype == torch.float32 else duplicate(model).to(dtype)
        self.dtype, self.preprocess, self.finish = dtype, preprocess, finish
        if preprocess:
            mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std))
            self.scale = nn.Buffer((1 / (255 * std)).float().view(3, 1, 1))
            self.shift = nn.Buffer((-mean / std).float().view(3, 1, 1))

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
        return self.finish(output) if self.finish else output


def probabilities(output: Tensor) -> Tensor:
    """(B, classes) -> (B, classes): logits as probabilities."""
    return output.softmax(1)


class Subject(Protocol):
    """What a format needs to know of what it writes.

    Attributes:
        input: its name: "images", or "tokens".
        dtype: "float32" or "float16".
        outputs: their names.
        metadata: what every format holds.
    """

    input: str
    dtype: str
    outputs: list[str]
    metadata: dict[str, str]

    def traced(self, dtype: str) -> torch.export.ExportedProgram:
        """The model in that dtype as torch's graph."""
        ...

    def cases(self) -> list[Tensor]:
        """Inputs to compare outputs on."""
        ...

    def expected(self, given: Tensor) -> list[Tensor]:
        """What eager torch gives for one of them."""
        ...

    def coreml_input(self) -> Any:
        """The input as coremltools declares one."""
        ...


class Deployed:
    """A model on its way into a file: fused as it is run there, and as it was given.

    Attributes:
        input: its name.
        reference: the model that was given, eager and in float32, with which the file is compared.
        lowered: what is written.
        preprocess: what is done inside the file, if anything.
        finish: what is done to the outputs at last: probabilities, or unit length.
        usual_size: (height, width) that the weights are for.
        size: (height, width), if they are fixed; None for any.
        free: axes of the images that may have any size.
        in_chans: channels of the images.
        dtype: "float32" or "float16".
        outputs: their names.
        metadata: what every format holds.
    """

    input = "images"

    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        preprocesses: bool,
        size: tuple[int, int] | None,
        dtype: str,
        free: Collection[int],
        normalize: bool = False,
    ) -> None:
        """Check the arguments, copy and fuse; `free` are the axes that the format leaves free.

        Raises:
            ValueError: another dtype or size; a model in train mode; with preprocessing, one for other than three
                channels; unit length of what is no embedding.
            TypeError: it holds no FastViT.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}, expected {' or '.join(DTYPES)}")
        if size is not None:
            check_size(size, "input_size")
        model = unwrapped(model)
        parts = model.modules() if isinstance(model, nn.Module) else ()
        inner = require_model(next((part for part in parts if isinstance(part, FastViT)), model), FastViT)
        self.usual_size: tuple[int, int] = tuple(inner.pretrained_cfg["input_size"][1:])
        self.size = size or (None if 2 in free else self.usual_size)
        self.free = sorted(set(free) - {2, 3}) if self.size else sorted(free)
        self.dtype, self.in_chans = dtype, inner.in_chans
        self.preprocess = Preprocess.from_cfg(inner.pretrained_cfg) if preprocesses else None
        require_eval_mode(model, "export a model")
        self.reference = duplicate(model).cpu().float()
        smallest = example(self.reference, 1, SMALLEST, SMALLEST)
        self.lowered = lower(unobserved(self.reference, smallest))
        self.outputs = output_names(model, listed(self.reference(smallest)))
        self.finish: Finish | None = F.normalize if normalize else None
        if normalize and self.outputs != ["embedding"]:
            raise ValueError(
                f"normalize is for an embedding, and the model gives {', '.join(self.outputs)}: leave it out"
            )
        if preprocesses and self.outputs == ["logits"]:
            self.finish, self.outputs = probabilities, ["probabilities"]
        self.metadata = self._metadata(inner, PIXELS if preprocesses else PREPARED, normalize)

    def _metadata(self, inner: FastViT, prepared: str, normalize: bool) -> dict[str, str]:
        """What every format holds."""
        cfg = inner.pretrained_cfg | {"num_classes": inner.num_classes}
        return {
            "library": f"fastvit {__version__}",
            "variant": cfg.get("architecture") or type(inner).__name__,
            "form": "fused",
            "pretrained_cfg": json.dumps(cfg),
            "label_names": json.dumps(cfg.get("label_names") or []),
            "license": cfg.get("license") or "unknown",
            "input": f"images: {prepared}",
            "outputs": ", ".join(self.outputs) + (", of unit length" if normalize else ""),
        }

    def traced(self, dtype: str) -> torch.export.ExportedProgram:
        """The model in that dtype as torch's graph."""
        batch, *usual = TRACED
        images = example(self.reference, batch if 0 in self.free else 1, *(self.size or usual))
        pipeline = Pipeline(self.lowered, DTYPES[dtype], self.preprocess, self.finish).eval()
        return traced(pipeline, images, self.free)

    def images(self, batch: int, height: int, width: int) -> Tensor:
        """Something to compare outputs on: noise, of whole numbers from 0 to 255 for pixels."""
        noise = example(self.reference, batch, height, width)
        return (noise * 64 + 128).round().clamp(0, 255) if self.preprocess else noise

    def cases(self) -> list[Tensor]:
        """Of several sizes, if they are free, and batches."""
        shapes = [(batch, *self.size) for batch in (1, 2)] if self.size else list(COMPARED)
        if 0 not in self.free:
            shapes = list(dict.fromkeys((1, height, width) for _, height, width in shapes))
        return [self.images(*shape) for shape in shapes]

    def coreml_input(self) -> Any:
        """One image, of Apple's type where the preprocessing is inside, of any size unless it is fixed."""
        import coremltools
        import numpy

        def edge(usual: int) -> Any:
            return coremltools.RangeDim(SMALLEST, LARGEST, default=min(usual, LARGEST))

        shape = (1, self.in_chans, *(self.size or map(edge, self.usual_size)))
        if self.preprocess:
            return coremltools.ImageType(name=self.input, shape=shape, color_layout=coremltools.colorlayout.RGB)
        return coremltools.TensorType(name=self.input, shape=shape, dtype=numpy.float32)

    def expected(self, given: Tensor) -> list[Tensor]:
        """What eager torch gives."""
        images = self.preprocess.normalized(given.byte().permute(0, 2, 3, 1)) if self.preprocess else given
        outputs = listed(self.reference(images))
        return [self.finish(output) for output in outputs] if self.finish else outputs
