"""Models with random parameters, which would else hide most mistakes, and small images to try things on."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy
import torch
from PIL import Image, ImageColor
from torch import nn

from .checkpoint import load
from .create import create_model
from .models.affine import ScaleShift
from .models.config import CONFIGS
from .models.fastvit import FastViT
from .utils.numbers import check_whole

Module = TypeVar("Module", bound=nn.Module)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, ScaleShift)
LAYER_SCALE = 0.15  # for half precision: with 1, blocks add up until its rounding changes the result


@torch.no_grad()
def randomize(model: Module, seed: int = 0) -> Module:
    """Draw every parameter and running statistic of `model` anew, in place, so that activations stay near one.

    Weights are within 1 / sqrt(fan-in), a norm's weight and variance in (0.5, 1.5), layer scales in (0.1, 0.5), biases
    and running means N(0, 0.1). The draw depends on the order, the shapes and the dtypes of the parameters alone.

    Example:
        >>> import fastvit
        >>> from fastvit.testing import randomize
        >>> model = randomize(fastvit.create_model("fastvit_t8")).eval()
        >>> fastvit.verify(model).exact
        True
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        norm = isinstance(module, NORMS)
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name == "num_batches_tracked":
                tensor.fill_(7)
            elif name in ("bias", "running_mean"):
                tensor.normal_(0, 0.1, generator=generator)
            elif norm:  # weight and running_var
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim in (1, 3):  # layer scale, (C,) or (C, 1, 1)
                tensor.uniform_(0.1, 0.5, generator=generator)
            else:
                bound = tensor[0].numel() ** -0.5  # by fan-in
                tensor.uniform_(-bound, bound, generator=generator)
    return model


def random_model(variant: str, seed: int = 0, layer_scale: float = 1.0) -> FastViT:
    """A model for which there are no weights, in eval mode, with what `randomize` draws; always the same.

    Its weights are scaled up to a variance of 1 / fan-in, with which every layer passes on how images differ: else what
    ignores the image would hardly be noticed.

    Args:
        variant: a name that `fastvit.list_models` gives.
        seed: of the draw.
        layer_scale: a factor of the layer scales. A small one, as trained ones are, keeps half precision's rounding
            from growing block by block.

    Raises:
        ValueError: an unknown variant, or a seed that is none.

    Example:
        >>> from fastvit.testing import random_model
        >>> random_model("fastvit_t8").num_classes
        1000
    """
    check_whole(0, 2**63 - 1, seed=seed)
    model = randomize(cast(FastViT, create_model(variant)), seed).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".scale"):
                parameter.mul_(layer_scale)
            elif parameter.ndim > 1:
                parameter.mul_(math.sqrt(3))  # a uniform draw has a third of its bound's variance
    return model


def has_weights(source: str) -> bool:
    """Whether it is more than a variant's bare name: a checkpoint's name, a file or a folder."""
    return source not in CONFIGS or Path(source).exists()


def load_or_random(source: str, seed: int = 0, layer_scale: float = LAYER_SCALE) -> FastViT:
    """What `fastvit.load` reads, or a variant with random weights, as `random_model` draws them; in eval mode.

    Raises:
        fastvit.WeightsError: the source is neither, or damaged.

    Example:
        >>> from fastvit.testing import load_or_random
        >>> load_or_random("fastvit_t8.cifar10").num_classes, load_or_random("fastvit_t8").num_classes
        (10, 1000)
    """
    return load(source) if has_weights(source) else random_model(source, seed, layer_scale)


def write_images(folder: str | Path, classes: Sequence[str] = ("red", "blue"), **counts: int) -> Path:
    """Write FOLDER/SPLIT/CLASS/0.png and on, of 32 x 32 pixels: noise around a colour of its own for each class.

    Args:
        folder: is made if it is not there.
        classes: their names.
        **counts: images of each class, by the name of the split.

    Returns:
        The folder, which `fastvit.train` and `fastvit.evaluate` read.

    Example:
        >>> import tempfile
        >>> from fastvit.testing import write_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = write_images(folder, train=4, val=2)
        ...     print(*sorted(str(path.relative_to(data)) for path in data.glob("val/*/*")))
        val/blue/0.png val/blue/1.png val/red/0.png val/red/1.png
    """
    random = numpy.random.default_rng(0)
    for split, count in counts.items():
        for number, name in enumerate(classes):
            hue = 240 * number / max(len(classes) - 1, 1)  # from red to blue
            colour = ImageColor.getrgb(f"hsv({hue:.1f}, 80%, 80%)")
            (Path(folder) / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(Path(folder) / split / name / f"{index}.png")
    return Path(folder)
