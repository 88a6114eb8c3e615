"""Networks in which nothing is 0, 1 or 1e-5: at default initialisation most mistakes in folding are invisible."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


@torch.no_grad()
def randomize(model: Module, seed: int = 0) -> Module:
    """`model` with every parameter and running statistic drawn anew, in place, so that activations stay near one.

    Weights within 1 / sqrt(fan-in); a norm's weight and variance in (.5, 1.5); layer scales in (.1, .5);
    biases and running means N(0, .1). The draw depends on the order, the shapes and the dtype of the parameters alone.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        norm = isinstance(module, NORMS) or type(module).__name__ == "ScaleShift"
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
