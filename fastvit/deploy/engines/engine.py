"""An engine: images in, what the model gives out; the first outputs are compared with eager torch's."""

import copy
import pickle
import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...images.preprocess import Preprocess, check_images, check_size
from ...utils.numbers import check_whole
from ...utils.numerics import Error, compared, largest, without_cudnn
from ...utils.text import one_line, with_article
from ..graph import first_convolution
from ..lowering import listed

Run = Callable[[Tensor], list[Tensor]]
"""Images (B, in_chans, H, W) in float32 -> the model's outputs."""

# Largest difference from eager float32, relative to the largest output, that counts as the same. bfloat16 keeps 8 bits
# and float16 11; of int8 only a mistake can be distinguished from its rounding, and how good it is its accuracy says.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "int8": 0.5}


class Remade:
    """`make(*arguments)`, a function of images, which pickle and copy pass on as how it is made.

    Raises:
        EngineError: a file among the arguments is not there.
    """

    def __init__(self, make: Callable[..., Run], *arguments: Any) -> None:
        if gone := [path for path in arguments if isinstance(path, Path) and not path.exists()]:
            raise EngineError(f"{gone[0]}: is not there, of which this engine was made: make a new one of the model")
        self._made_by = make, arguments
        self._run = make(*arguments)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """What the function gives."""
        return self._run(images)

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = self._made_by
        return type(self), (make, *arguments)


class EngineError(ValueError):
    """An engine that cannot be used here, or gives something else than the model: why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of an engine, as `fastvit.engine` explains."""

    precision: str = "float32"
    threads: int | None = None
    input_size: tuple[int, int] | None = None  # height, width
    calibration: Tensor | None = None
    keep: Collection[str] = ()  # layers and blocks that are not quantized

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_whole(1, threads=self.threads)
        if self.input_size is not None:
            check_size(self.input_size, "input_size")


class Engine:
    """A model that runs fast: images (B, in_chans, H, W) -> what the model gives, in float32, on the images' device.

    That is logits (B, classes), features, or a list of maps. Any batch, and any H and W from 32 up; several threads may
    call at once. The first call also runs the model in eager torch, on its first image, and compares. What is compiled
    apart, for the one image of `input_size` and for anything else, is compared apart, each when it is first called;
    with "compile" each shape is. An engine may be copied, and pickled into another process of the same machine.

    Attributes:
        name: "torch", "compile", "onnxruntime" or "openvino".
        precision: "float32", "bfloat16", "float16" or "int8".
        error: the largest difference from eager float32 so far; None before the first call.
        chosen: what "auto" measured and why it took this one; else "".
        device: where it computes.
        pretrained_cfg, num_classes, returns_embedding, class_scales: those of the model; if it is no FastViT, nothing.
    """

    def __init__(self, name: str, request: Request, run: Run, model: nn.Module) -> None:
        self.name, self.precision, self.chosen = name, request.precision, ""
        self.error: Error | None = None
        self._run = run
        self._reference: nn.Module | None = model  # until all has been compared with it
        self._lock = threading.Lock()
        first = first_convolution(model)
        self._in_chans, self.device = first.in_channels, first.weight.device
        self.pretrained_cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", {}))
        self.num_classes: int = getattr(model, "num_classes", 0)
        self.returns_embedding: bool = getattr(model, "returns_embedding", False)
        self.class_scales: list[float] | None = getattr(model, "class_scales", None)
        self._ahead = (1, self._in_chans, *request.input_size) if request.input_size else None
        self._compared = set[Hashable]()
        self._refused = ""

    @property
    def preprocess(self) -> Preprocess:
        """PIL image -> (3, *size), as the weights want it.

        Raises:
            ValueError: the model says nothing of it, or reads other than three channels.
        """
        if not self.pretrained_cfg:
            raise ValueError("this engine's model is no FastViT and does not say how images are prepared")
        return Preprocess.from_cfg(self.pretrained_cfg)

    def __copy__(self) -> "Engine":
        return self._again(self.__getstate__())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        return self._again(copy.deepcopy(self.__getstate__(), memo))

    def _again(self, state: dict[str, Any]) -> "Engine":
        again = type(self).__new__(type(self))
        again.__setstate__(state)
        return again

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle's way, once it is clear that it leads to an end.

        Raises:
            pickle.PicklingError: something in the model cannot be pickled, as a hook that is a local function.
        """
        try:
            _WithoutTensors(BytesIO(), protocol).dump(self.__getstate__())
        except Exception as error:  # whatever it is made of
            what = f"this engine cannot be pickled, as its model holds what cannot ({one_line(error)[:200]})"
            raise pickle.PicklingError(f"{what}: make one of the model without it, such as without its hooks") from None
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def __call__(self, images: Tensor | NDArray[numpy.floating]) -> Tensor | list[Tensor]:
        """The model's outputs for preprocessed images (B, in_chans, H, W), of a floating-point dtype, on any device.

        A numpy array will do for images; the outputs are tensors.

        Raises:
            TypeError: images that are no tensor and no array.
            ValueError: images of another shape or dtype.
            EngineError: the first outputs differ from eager torch's by more than `TOLERANCE`, or there are none.
        """
        if isinstance(images, numpy.ndarray):
            images = _tensor(images)
        if not isinstance(images, Tensor):
            found = with_article(type(images).__name__)
            raise TypeError(f"images are {found}, expected a tensor or an array (B, C, H, W)")
        check_images(images, self._in_chans, finite=False)
        plain, shape = images.detach().float(), tuple(images.shape)
        kind: Hashable = shape if self.name == "compile" else shape == self._ahead  # of what is compiled apart
        if kind not in self._compared:
            with self._lock:
                if kind not in self._compared:
                    self._compare(plain)
                    self._compared.add(kind)
        outputs = [output.to(images.device) for output in self._run(plain)]
        return outputs if self._many else outputs[0]

    @torch.no_grad()
    def _compare(self, images: Tensor) -> None:
        """Refuse the engine for good unless it gives what eager torch gives."""
        if self._refused:
            raise EngineError(self._refused)
        assert self._reference is not None
        with without_cudnn():
            outputs = self._reference(images[:1].to(self.device))
            with raising(EngineError, self.name):
                given = [output[:1] for output in self._run(images)]
        expected = listed(outputs)
        if not all(output.isfinite().all() for output in expected):
            raise EngineError("eager torch gives NaN or infinity for these images: there is nothing to compare with")
        error = compared(expected, given)
        if differs := difference(error, self.precision):
            self._refused = f"{self.name} in {self.precision} {differs}: choose another engine or precision"
            raise EngineError(self._refused)
        self._many = not isinstance(outputs, Tensor)
        self.error = error if self.error is None else largest([self.error, error])
        if self.name != "compile" and (self._ahead is None or self._compared):  # this was the last kind
            self._reference = None


class _WithoutTensors(pickle.Pickler):
    """Says whether something can be pickled, without its numbers."""

    def persistent_id(self, obj: object) -> str | None:
        return "tensor" if isinstance(obj, Tensor) else None


def _tensor(images: NDArray[Any]) -> Tensor:
    """A copy as a tensor, of this machine's byte order: the array may be read-only, which a tensor cannot be."""
    dtype = images.dtype
    try:
        return torch.from_numpy(images.astype("f8" if dtype == numpy.longdouble else dtype.newbyteorder("=")))
    except TypeError:
        raise ValueError(f"images are {dtype}, expected preprocessed ones, of a floating-point dtype") from None


def difference(error: Error, precision: str) -> str:
    """What to say of outputs that differ by more than `TOLERANCE`; "" of others."""
    if error.relative <= TOLERANCE[precision]:  # which NaN is not
        return ""
    allowed = f"expected at most {TOLERANCE[precision]:.0e}"
    return f"differs from eager torch by {error.relative:.1e} of the largest output, {allowed}"


@contextmanager
def raising(kind: type[Exception], name: str, *others: type[Exception]) -> Iterator[None]:
    """What a library raises, which may be of any kind, is `kind` in one line that begins with `name`; `others` pass."""
    passing: tuple[type[Exception], ...] = (kind, MemoryError, *others)
    try:
        yield
    except passing:
        raise
    except Exception as error:
        failed = "" if isinstance(error, ImportError) else f" failed: {type(error).__name__}"
        raise kind(f"{name}{failed}: {one_line(error)[:300]}") from error
