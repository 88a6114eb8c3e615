"""A model and its reparameterized form side by side: proof by measurement, block by block, and on somebody's images."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from .checkpoint import loaded
from .images.inputs import found_images
from .images.preprocess import check_images
from .models.affine import exact_device
from .models.fastvit import FastViT
from .models.forms import form_of
from .models.given import require_eval_mode
from .models.reparam import Fusible, foldable, fuse_children, fusible_blocks, reparameterize
from .utils.copies import duplicate
from .utils.numerics import Error, probabilities, without_cudnn
from .utils.text import finite, rendered, table
from .utils.timing import ratio, timer
from .weights.source import Source

# Largest relative error that counts as equal. Half precision is reported and not judged: there the unfused model
# rounds more often than the fused one and is the less exact of the two.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
Images = Tensor | str | PathLike[str] | Sequence[str | PathLike[str]] | None
WHOLE = "end to end"
ROUNDS = 5  # in which both forms are timed, one after the other: what slows both down leaves their ratio
ROUND_SECONDS = 0.3  # for each form in each round


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
    parameters: tuple[int, ...]  # before and after
    modules: tuple[int, ...]  # before and after

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
        from rich.console import Group

        dtype = str(self.dtype).removeprefix("torch.")
        headings = ("block", "kind", ">float64\nabs.", ">\nrel.", f">{dtype}\nabs.", ">\nrel.")
        rows = []
        for row in (*self.blocks, self.whole):
            numbers = (*astuple(row.float64), *astuple(row.own))
            rows.append((row.name, row.kind, *(f"{number:.1e}" for number in numbers)))
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.0%}"
        return Group(
            table(headings, rows),
            f"\n{self.model}, {len(self.blocks)} blocks, images {self.images}{agreement}",
            f"parameters {self.parameters[0]:,} -> {self.parameters[1]:,}, "
            f"modules {self.modules[0]:,} -> {self.modules[1]:,}",
            f"The reparameterized model {'computes' if self.exact else 'does NOT compute'} the same.",
        )


def verify(model: FastViT | Source, images: Images = None) -> Report:
    """Reparameterize a copy of `model` and measure how far its outputs, and each block's, are from the original's.

    Each block is compared on what it receives, in float64 and in the model's dtype; the model is left untouched.

    Args:
        model: unfused, in eval mode, or what `fastvit.load` reads. At its initial values it proves little: batch norm
            is then almost the identity.
        images: (B, in_chans, H, W), preprocessed; or paths, folders or patterns of images, one or several. By default
            four of normal noise, of the variant's size but at most 256 x 256.

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
    model = loaded(model, FastViT)
    require_eval_mode(model, "verify a model")
    if form_of(model) == "fused":
        raise ValueError("cannot verify a fused model: nothing is left to compare with; give the unfused one")
    images = _as_tensor(images, model)
    kinds = {name: type(block).__name__ for name, block in foldable(model).items()}
    own, agreement, fused = _compare(duplicate(model), images, kinds)
    exact, *_ = _compare(duplicate(model).to(exact_device(next(model.parameters()).device)).double(), images, kinds)
    *blocks, whole = (Row(name, kind, exact[name], own[name]) for name, kind in (kinds | {WHOLE: ""}).items())
    return Report(
        model=model.pretrained_cfg.get("architecture") or type(model).__name__,
        dtype=next(model.parameters()).dtype,
        images=tuple(images.shape),
        blocks=tuple(blocks),
        whole=whole,
        top1_agreement=agreement if model.num_classes else None,
        parameters=tuple(sum(map(torch.numel, each.parameters())) for each in (model, fused)),
        modules=tuple(len(list(each.modules())) for each in (model, fused)),
    )


def _as_tensor(images: Images, model: FastViT) -> Tensor:
    """(B, in_chans, H, W), as `verify` says."""
    if images is None:
        size = [min(256, edge) for edge in model.config.preprocess.size]
        images = torch.randn(4, model.in_chans, *size, generator=torch.Generator().manual_seed(0))
    elif not isinstance(images, Tensor):
        images = model.preprocess.read(found_images(images))
    check_images(images, model.in_chans)
    return images


@torch.no_grad()
@without_cudnn()
def _compare(model: FastViT, images: Tensor, names: Iterable[str]) -> tuple[dict[str, Error], float, FastViT]:
    """Errors by the block's name, share of the images with the same best output, and `model`, now fused."""
    like = next(model.parameters())
    images = images.to(like.device, like.dtype)
    errors: dict[str, Error] = {}

    def compare(block: Fusible, inputs: tuple[Tensor], output: Tensor, name: str) -> None:
        errors[name] = Error.between(output, block.fuse().forward(*inputs))  # without the block's hooks, as `output` is

    blocks = ((name, model.get_submodule(name)) for name in names)
    hooks = [block.register_forward_hook(partial(compare, name=name), prepend=True) for name, block in blocks]
    expected = model(images)
    for hook in hooks:
        hook.remove()
    fuse_children(model)
    given = model(images)
    errors[WHOLE] = Error.between(expected, given)
    return errors, (expected.argmax(1) == given.argmax(1)).double().mean().item(), model


class Comparison:
    """Runs in a model's place, and counts: images (B, 3, H, W) -> logits (B, num_classes), of one form or the other.

    Each batch goes through both forms once. Images with a result that is not finite are not counted.

    Args:
        model: unfused, in eval mode, left as it is; or what `fastvit.load` reads.
        fused: whether the logits are those of the fused form.

    Attributes:
        unfused, fused: both forms, in copies.
        images: how many have been compared.
        same_top1: how many of them have the same most likely class.
        largest_difference: of the probability of any class of any image.

    Raises:
        ValueError: train mode, or a model that is fused already.

    Example:
        >>> import fastvit, torch
        >>> from fastvit.verification import Comparison
        >>> comparison = Comparison(fastvit.load("fastvit_t8.cifar10"))
        >>> comparison(torch.randn(4, 3, 64, 64)).shape
        torch.Size([4, 10])
        >>> comparison.same_top1, comparison.largest_difference < 1e-5
        (4, True)
    """

    def __init__(self, model: FastViT | Source, fused: bool = True) -> None:
        model = loaded(model, FastViT)
        if not fusible_blocks(model):
            raise ValueError("the model is fused already: to compare needs the weights that it was made of")
        forms = duplicate(model), reparameterize(model)
        self.unfused, self.fused = (form.to(memory_format=torch.channels_last) for form in forms)  # as images lie
        self.returns_fused = fused
        self.images, self.same_top1, self.largest_difference = 0, 0, 0.0

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Compare both forms on preprocessed images, and return the logits of the one that was chosen."""
        both: list[Tensor] = [self.unfused(images), self.fused(images)]
        unfused, fused = map(probabilities, both)
        differences = (unfused - fused).abs().amax(1)
        counted = differences.isfinite()  # whoever reads the logits reports the others
        self.largest_difference = max([self.largest_difference, *differences[counted].tolist()])
        self.same_top1 += int((unfused.argmax(1) == fused.argmax(1))[counted].sum())
        self.images += int(counted.sum())
        self._one = images[:1]
        return both[self.returns_fused]

    def summary(self) -> dict[str, Any]:
        """What was counted, and how long each form takes for one image, as JSON takes it.

        `unfused_ms` and `fused_ms` are medians in milliseconds; `speedup` is the median of their ratios, taken round
        by round, with its quartiles.

        Raises:
            ValueError: no image has been seen yet.
        """
        if not self.images:
            raise ValueError("nothing has been compared yet: call the comparison with images first")
        timers = [timer(partial(model, self._one)) for model in (self.unfused, self.fused)]
        with torch.inference_mode():  # one form after the other in each round
            seconds = [each.blocked_autorange(min_run_time=ROUND_SECONDS).median for each in ROUNDS * timers]
        unfused, fused = seconds[::2], seconds[1::2]
        speedup = ratio(unfused, fused)
        return {
            "images": self.images,
            "same_top1": self.same_top1,
            "largest_difference": self.largest_difference,
            "unfused_ms": 1000 * statistics.median(unfused),
            "fused_ms": 1000 * statistics.median(fused),
            "speedup": speedup.median,
            "speedup_quartiles": [speedup.low, speedup.high],
        }
