"""What a model is refused for, before anything is done with it."""

from collections.abc import Mapping

from torch import nn

from ..utils.text import some


def require_eval_mode(model: nn.Module, what: str, parts: Mapping[str, nn.Module] | None = None) -> None:
    """Refuse a model in train mode, or with a part that is.

    Args:
        model: any module.
        what: that cannot be done to it, for the message: "verify a model".
        parts: those of its modules that matter, by name; by default all.

    Raises:
        ValueError: says which part is in train mode, how many more are, and what to do.

    Example:
        >>> from torch import nn
        >>> from fastvit.models.checks import require_eval_mode
        >>> require_eval_mode(nn.ReLU(), "run it")
        Traceback (most recent call last):
        ValueError: cannot run it in train mode (ReLU), where batch norm depends on the batch: call model.eval() first
    """
    training = [
        ".".join(filter(None, (part, name))) or type(model).__name__
        for part, module in ({"": model} if parts is None else parts).items()
        for name, inner in module.named_modules()
        if inner.training
    ]
    if training:
        where = some(training, 1)
        raise ValueError(
            f"cannot {what} in train mode ({where}), where batch norm depends on the batch: call model.eval() first"
        )


def check_numbers(**values: tuple[float, float, float | None]) -> None:
    """Refuse numbers out of their range; each is given by its name as (value, lowest, what it is below, or None).

    Raises:
        ValueError: says which, its value and its range; NaN is in none.

    Example:
        >>> from fastvit.models.checks import check_numbers
        >>> check_numbers(drop_rate=(1.5, 0, 1))
        Traceback (most recent call last):
        ValueError: drop_rate is 1.5, expected 0 or more and below 1
    """
    for name, (value, low, high) in values.items():
        if not (low <= value and (high is None or value < high)):  # also refuses nan
            limit = f"{low} or more" + (f" and below {high}" if high is not None else "")
            raise ValueError(f"{name} is {value}, expected {limit}")
