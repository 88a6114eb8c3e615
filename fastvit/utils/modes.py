"""The mode, training or evaluation, that a model is in."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, every module of `model` is in eval mode; afterwards each is in the mode that it was in.

    Example:
        >>> from torch import nn
        >>> from fastvit.utils.modes import eval_mode
        >>> model = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout())
        >>> with eval_mode(model):
        ...     print(model.training, model[1].training)
        False False
        >>> model.training, model[0].training, model[1].training
        (True, False, True)
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
