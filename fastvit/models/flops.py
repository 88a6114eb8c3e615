"""How much arithmetic a model does."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..images.preprocess import check_size
from ..utils.copies import duplicate
from .config import CONFIGS, SIZES, Size
from .fastvit import FastViT
from .forms import outline
from .reparam import reparameterize


def multiply_adds(model: FastViT, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one image of `size`, (height, width): convolutions, linear layers and attention.

    In eval mode, whatever the model's own. Norms, activations, sums and biases are not counted, as is the custom of
    papers' "FLOPs". Nothing is computed: only shapes go through a copy without memory.

    Raises:
        ValueError: a size that a FastViT does not take.

    Example:
        >>> from fastvit import CONFIGS
        >>> from fastvit.models.flops import multiply_adds
        >>> from fastvit.models.forms import outline
        >>> f"{multiply_adds(outline(CONFIGS['fastvit_t8'], 'fused'), (256, 256)) / 1e9:.1f} GMACs"
        '0.7 GMACs'
    """
    check_size(size)
    copies = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    copies |= {id(weight): nn.Parameter(weight.detach().to("meta")) for weight in model.parameters()}
    shapes = duplicate(model, copies, hooks=False).eval()  # which never had memory
    images = torch.empty(1, model.in_chans, *size, dtype=next(model.parameters()).dtype, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(images)
    return int(counter.get_total_flops()) // 2  # which counts a product and its sum as two


def size_of(variant: str) -> Size:
    """The counts of a variant with its own head: those of the table, or counted now.

    Example:
        >>> size_of("fastvit_t8").parameters
        4026232
    """
    if variant in SIZES:
        return SIZES[variant]
    model = outline(CONFIGS[variant])
    parameters = sum(map(torch.numel, model.parameters()))
    fused = reparameterize(model, inplace=True)
    size = CONFIGS[variant].preprocess.size
    return Size(parameters, sum(map(torch.numel, fused.parameters())), multiply_adds(fused, size))
