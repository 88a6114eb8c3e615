"""Proof by measurement that a model and its reparameterized form compute the same."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn

from .images.preprocess import check_images
from .models.affine import exact_device
from .models.checks import require_eval_mode
from .models.fastvit import FastViT
from .models.forms import form_of
from .models.reparam import Fusible, fusible_blocks, reparameterize
from .utils.numerics import Error, without_cudnn
from .utils.text import finite, rendered

# Largest relative error that counts as equal. Half precision is reported and not judged: there the unfused model
# rounds more often than the fused one and is the less exact of the two.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True, slots=True)
class Row:
    """A block, or the whole model: its error in float64 and in the model's own dtype."""

    name: str
    kind: str
    float64: Error
    own: Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `fastvit.verify` measured; `print` shows it as a table."""

    model: str
    dtype: torch.dtype
    images: tuple[int, ...]  # (B, in_chans, H, W)
    blocks: tuple[Row, ...]
    whole: Row
    top1_agreement: float | None  # share of the images with the same best class; None without classes
    parameters: tuple[int, int]  # before and after
    modules: tuple[int, int]  # before and after

    @property
    def exact(self) -> bool:
        """Whether the reparameterized model computes the same: every block, and the whole, within `TOLERANCE`."""
        rows = (*self.blocks, self.whole)
        own = TOLERANCE.get(self.dtype, float("inf"))
        # Written so that NaN is not exact.
        return all(row.float64.relative <= TOLERANCE[torch.float64] and row.own.relative <= own for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it: None stands for infinity and NaN."""
        report: dict[str, Any] = finite(asdict(self))
        return report | {"dtype": str(self.dtype).removeprefix("torch."), "exact": self.exact}

    def __str__(self) -> str:
        return rendered(self)

    def __rich__(self) -> Any:
        """The table and what it says of the whole, for a rich console."""
        dtype = str(self.dtype).removeprefix("torch.")
        headings = ("block", "kind", "float64\nabs.", "\nrel.", f"{dtype}\nabs.", "\nrel.")
        table = Table(*headings, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for column in table.columns[2:]:
            column.justify, column.no_wrap = "right", True
        for row in (*self.blocks, self.whole):
            numbers = (row.float64.absolute, row.float64.relative, row.own.absolute, row.own.relative)
            table.add_row(row.name, row.kind, *(f"{number:.1e}" for number in numbers))
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.0%}"
        return Group(
            table,
            f"\n{self.model}, {len(self.blocks)} blocks, images {self.images}{agreement}",
            f"parameters {self.parameters[0]:,} -> {self.parameters[1]:,}, "
            f"modules {self.modules[0]:,} -> {self.modules[1]:,}",
            f"The reparameterized model {'computes' if self.exact else 'does NOT compute'} the same.",
        )


def verify(model: FastViT, images: Tensor | None = None) -> Report:
    """Reparameterize a copy of `model` and measure how far its outputs, and each block's, are from the original's.

    Each block is compared on what it receives while the model looks at the images, once in float64 and once in the
    model's dtype. The model is left untouched.

    Args:
        model: unfused, in eval mode. At its initial values it proves little: batch norm is then almost the identity.
        images: (B, in_chans, H, W); by default four of normal noise, of the variant's size but at most 256 x 256.

    Returns:
        A `fastvit.verification.Report`: `exact` says whether they agree, `print` shows the errors of every block.

    Raises:
        ValueError: train mode; a model that is fused or half fused; images of another shape, of whole numbers, or not
            finite.

    Example:
        >>> import fastvit
        >>> report = fastvit.verify(fastvit.load("fastvit_t8.cifar10"))
        >>> isinstance(report, fastvit.verification.Report), report.exact, report.top1_agreement
        (True, True, 1.0)
        >>> print(str(report).splitlines()[-1])
        The reparameterized model computes the same.
    """
    require_eval_mode(model, "verify a model")
    if form_of(model) == "fused":
        raise ValueError("cannot verify a fused model: nothing is left to compare with; give the unfused one")
    images = _noise(model) if images is None else images
    check_images(images, model.in_chans)
    own_blocks, own_whole, expected, given, fused = _compare(copy.deepcopy(model), images)
    exact = copy.deepcopy(model).to(exact_device(next(model.parameters()).device)).double()
    exact_blocks, exact_whole, *_ = _compare(exact, images)
    kinds = {name: type(block).__name__ for name, block in fusible_blocks(model).items()}
    return Report(
        model=model.pretrained_cfg.get("architecture") or type(model).__name__,
        dtype=next(model.parameters()).dtype,
        images=tuple(images.shape),
        blocks=tuple(Row(name, kinds[name], exact_blocks[name], own_blocks[name]) for name in kinds),
        whole=Row("end to end", "", exact_whole, own_whole),
        top1_agreement=(expected.argmax(1) == given.argmax(1)).double().mean().item() if model.num_classes else None,
        parameters=(_parameters(model), _parameters(fused)),
        modules=(len(list(model.modules())), len(list(fused.modules()))),
    )


@torch.no_grad()
@without_cudnn()
def _compare(model: FastViT, images: Tensor) -> tuple[dict[str, Error], Error, Tensor, Tensor, FastViT]:
    """Errors of the blocks and of the whole, both outputs, and `model`, now fused."""
    like = next(model.parameters())
    images = images.to(like.device, like.dtype)
    errors: dict[str, Error] = {}
    names = {block: name for name, block in fusible_blocks(model).items()}

    def compare(block: Fusible, inputs: tuple[Tensor], output: Tensor) -> None:
        handles[block].remove()  # first: the fused layer takes over the block's hooks
        errors[names[block]] = Error.between(output, block.fuse()(*inputs))

    handles = {block: block.register_forward_hook(compare) for block in names}
    expected = model(images)
    given = reparameterize(model, inplace=True)(images)
    return errors, Error.between(expected, given), expected, given, model


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _noise(model: FastViT) -> Tensor:
    """Four images, the same every time."""
    size = [min(256, edge) for edge in model.config.preprocess.size]
    return torch.randn(4, model.in_chans, *size, generator=torch.Generator().manual_seed(0))
