"""The learning rate: at each step, and of each part of a model."""

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from ..utils.sampling import evenly
from .recipe import Recipe


def scale_rate(optimizer: torch.optim.Optimizer, part: nn.Module, factor: float) -> None:
    """Multiply the learning rate of a part of the model, by "lr_scale" of timm's schedulers; before the first step.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> scale_rate(optimizer, model[1], 10)
        >>> [(len(group["params"]), group.get("lr_scale", 1.0)) for group in optimizer.param_groups]
        [(2, 1.0), (2, 10.0)]
    """
    of_part, groups = set(part.parameters()), []
    for group in optimizer.param_groups:
        for inside, scale in ((False, 1.0), (True, factor)):
            if parameters := [each for each in group["params"] if (each in of_part) == inside]:
                groups.append(group | {"params": parameters, "lr_scale": scale * group.get("lr_scale", 1.0)})
    optimizer.param_groups[:] = groups


def make_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> CosineLRScheduler:
    """The learning rate at each step: it rises linearly, falls as half a cosine, and then stays the lowest."""
    return CosineLRScheduler(
        optimizer,
        t_initial=round((recipe.epochs - recipe.cooldown_epochs) * steps_per_epoch),
        lr_min=min(recipe.min_learning_rate, recipe.learning_rate),
        warmup_t=round(recipe.warmup_epochs * steps_per_epoch),
        warmup_lr_init=min(recipe.warmup_learning_rate, recipe.learning_rate),
        t_in_epochs=False,
    )


def learning_rates(recipe: Recipe, steps_per_epoch: int, steps: int, most: int = 500) -> list[tuple[float, float]]:
    """(epoch, learning rate) from the first step on, at most so many evenly spread over the steps, for a plot.

    Example:
        >>> recipe = Recipe(epochs=1, warmup_epochs=0, learning_rate=0.2, min_learning_rate=0)
        >>> [(epoch, round(rate, 6)) for epoch, rate in learning_rates(recipe, steps_per_epoch=2, steps=2)]
        [(0.0, 0.2), (0.5, 0.1)]
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=recipe.learning_rate)
    schedule, found = make_schedule(recipe, optimizer, steps_per_epoch), []
    for step in evenly(most, steps):
        schedule.step_update(step)
        found.append((step / steps_per_epoch, float(optimizer.param_groups[0]["lr"])))
    return found
