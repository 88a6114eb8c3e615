"""What is exported: the model as it is run, with what it says of itself."""

import json
from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..._version import __version__
from ...images.preprocess import SMALLEST, Preprocess, check_size
from ...models.fastvit import FastViT
from ...models.given import require_eval_mode, require_model, unwrapped
from ...utils.copies import duplicate
from ..graph import TRACED, example, output_names, traced
from ..lowering import listed, lower, unobserved

PIXELS = "RGB pixels from 0 to 255, of the size that the model is to see"
PREPARED = "as pretrained_cfg says, ((pixels / 255) - mean) / std"
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Pipeline(nn.Module):
    """images (B, in_chans, H, W) in float32 -> what the model gives, in float32, whatever it computes in.

    With `preprocess` the images are pixels from 0 to 255, and with `softmax` the outputs are probabilities.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, preprocess: Preprocess | None, softmax: bool):
        super().__init__()
        self.model = model if dtype == torch.float32 else duplicate(model).to(dtype)
        self.dtype, self.preprocess, self.softmax = dtype, preprocess, softmax
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
        return output.softmax(1) if self.softmax else output


class Deployed:
    """A model on its way into a file: fused as it is run there, and as it was given.

    Attributes:
        reference: the model that was given, eager and in float32, with which the file is compared.
        lowered: what is written.
        preprocess: what is done inside the file, if anything.
        softmax: whether it gives probabilities.
        usual_size: (height, width) that the weights are for.
        size: (height, width), if they are fixed; None for any.
        free: axes of the images that may have any size.
        in_chans: channels of the images.
        dtype: "float32" or "float16".
        outputs: their names.
        metadata: what every format holds.
    """

    @torch.no_grad()
    def __init__(
        self, model: nn.Module, preprocesses: bool, size: tuple[int, int] | None, dtype: str, free: Collection[int]
    ) -> None:
        """Check the arguments, copy and fuse; `free` are the axes that the format leaves free.

        Raises:
            ValueError: another dtype or size; a model in train mode; with preprocessing, one for other than three
                channels.
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
        self.softmax = preprocesses and self.outputs == ["logits"]
        if self.softmax:
            self.outputs = ["probabilities"]
        cfg = inner.pretrained_cfg | {"num_classes": inner.num_classes}
        self.metadata = {
            "library": f"fastvit {__version__}",
            "variant": cfg.get("architecture") or type(inner).__name__,
            "form": "fused",
            "pretrained_cfg": json.dumps(cfg),
            "label_names": json.dumps(cfg.get("label_names") or []),
            "license": cfg.get("license") or "unknown",
            "input": f"images: {PIXELS if preprocesses else PREPARED}",
            "outputs": ", ".join(self.outputs),
        }

    def traced(self, dtype: str) -> torch.export.ExportedProgram:
        """The model in that dtype as torch's graph."""
        batch, *usual = TRACED
        images = example(self.reference, batch if 0 in self.free else 1, *(self.size or usual))
        pipeline = Pipeline(self.lowered, DTYPES[dtype], self.preprocess, self.softmax).eval()
        return traced(pipeline, images, self.free)

    def images(self, batch: int, height: int, width: int) -> Tensor:
        """Something to compare outputs on: noise, of whole numbers from 0 to 255 for pixels."""
        noise = example(self.reference, batch, height, width)
        return (noise * 64 + 128).round().clamp(0, 255) if self.preprocess else noise

    def expected(self, images: Tensor) -> list[Tensor]:
        """What eager torch gives."""
        if self.preprocess:
            images = self.preprocess.normalized(images.byte().permute(0, 2, 3, 1))
        outputs = listed(self.reference(images))
        return [output.softmax(1) for output in outputs] if self.softmax else outputs
