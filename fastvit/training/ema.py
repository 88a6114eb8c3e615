"""The exponential moving average (EMA) of a model's weights, which is what a run keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.fastvit import FastViT

POWER = 2 / 3  # of the warm-up, as in timm.utils.ModelEmaV3


class EMA:
    """The averages of a model's parameters and statistics by name, each as it is: whole, or a shard of it.

    timm's ModelEmaV3 keeps a whole model on the device, which is more than a process of FSDP has.

    Args:
        model: as it is trained.
        decay: of the average; 0 keeps the newest weights.
        template: the same model, unfused, on the CPU and in eval mode; it is used up.

    Attributes:
        tensors: the averages, by the names of the model's state dict.
    """

    def __init__(self, model: FastViT, decay: float, template: FastViT) -> None:
        self.decay, self._template = decay, template
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def model_of(self, tensors: dict[str, Tensor]) -> FastViT:
        """The model with these weights and statistics: unfused, on the CPU and in eval mode."""
        self._template.load_state_dict(tensors)
        return self._template

    @torch.no_grad()
    def update(self, model: FastViT, steps: int) -> None:
        """Move the average by (1 - decay) * (model - average), after so many steps; early decays are smaller."""
        decay = max(0.0, min(self.decay, 1 - steps**-POWER))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
