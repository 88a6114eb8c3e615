"""The exponential moving average of a network's weights, which is what a run keeps."""

from __future__ import annotations

import torch
from torch import nn

POWER = 2 / 3  # of the warm-up, as in timm.utils.ModelEmaV3


class Average:
    """tensors: the averages of the network's parameters and statistics by name, each as it is: whole, or a shard of it.

    timm's ModelEmaV3 keeps a whole network, which is more than a process of FSDP has.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """average += (1 - decay) * (network - average), after so many updates; early decays are smaller."""
        decay = max(0.0, min(self.decay, 1 - updates**-POWER))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
