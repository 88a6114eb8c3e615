"""How much arithmetic a model does."""

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from ..images.preprocess import check_size
from ..utils.modes import eval_mode
from .fastvit import FastViT


def multiply_adds(model: FastViT, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one image of `size`, (height, width): convolutions, linear layers and attention.

    In eval mode, whatever the model's own. Norms, activations, sums and biases are not counted, as is the custom of
    papers' "FLOPs". Nothing is computed: only shapes go through the model, which stays as it is.

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
    shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    images = torch.empty(1, model.in_chans, *size, dtype=next(model.parameters()).dtype, device="meta")
    with eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, shapes, images)
    return int(counter.get_total_flops()) // 2  # which counts a product and its sum as two
