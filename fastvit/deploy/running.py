"""What runs a model: the model itself, fused or as it is, or an engine."""

from collections.abc import Collection
from os import PathLike

import torch
from torch import Tensor, nn

from ..checkpoint import loaded
from ..images.inputs import find_images
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..models.reparam import fusible_blocks
from ..models.reparam import reparameterize as fuse
from ..utils.copies import duplicate
from ..utils.devices import choose_device
from ..utils.sampling import evenly
from ..weights.source import Source
from .engines.engine import Engine
from .engines.select import RUNTIMES, check_options
from .engines.select import engine as make_engine
from .quantize import FEWEST

PLAIN = ("torch", "float32")
CALIBRATION = 300  # images
MOST_NUMBERS = 2**27  # in all of them: half a gigabyte


def runnable(
    model: FastViT | Source,
    *,
    device: torch.device | str | None = None,
    engine: str = "torch",
    precision: str = "float32",
    reparameterize: bool | None = True,
    threads: int | None = None,
    calibration: str | PathLike[str] | Tensor | None = None,
    keep: Collection[str] = (),
    inplace: bool = False,
) -> FastViT | Engine:
    """`model` as what runs it: preprocessed images (B, 3, H, W) -> logits (B, num_classes).

    In torch and float32 that is a FastViT in eval mode, else an `Engine`.

    Args:
        model: in any form and mode, left as it is unless `inplace`; or what `fastvit.load` reads.
        device: where to run; None where the model is, "" on the fastest device that the engine runs on.
        engine: a name that `fastvit.engine` has.
        precision: as `fastvit.engine` has it.
        reparameterize: run the fused form; False runs the branches, in torch and float32 alone; None the form it has.
        threads: of an engine on the CPU; None leaves it to the library.
        calibration: for int8 alone, a folder of images, or images (N, 3, H, W) as the model will see them.
        keep: for int8 alone, layers or blocks such as "stages.3.blocks.0" that are not quantized.
        inplace: the model may be used up, so that no second copy is held.

    Raises:
        ValueError: options that do not go together, a device or an engine (EngineError) that is not there.

    Example:
        >>> runnable("fastvit_t8.cifar10").num_classes
        10
    """
    check_options(engine, precision, calibration, keep)
    inplace, model = inplace or not isinstance(model, nn.Module), loaded(model, FastViT)
    _check_form(model, engine, precision, reparameterize)
    fuses = (engine, precision) == PLAIN and bool(reparameterize)
    model = _placed(model, device_for(model, device, engine), inplace, fuses)
    if (engine, precision) == PLAIN:
        model = fuse(model, inplace=True) if fuses else model
        return model.to(memory_format=torch.channels_last) if fuses or inplace else model  # as images lie
    if isinstance(calibration, str | PathLike):
        calibration = calibration_images(calibration, model.preprocess)
    return make_engine(model, engine, precision=precision, threads=threads, calibration=calibration, keep=keep)


def _placed(model: FastViT, device: torch.device, inplace: bool, changes: bool) -> FastViT:
    """In eval mode on the device; a copy, if anything about the model `changes` that must not."""
    if not inplace and (changes or model.training or device != device_of(model)):
        model = duplicate(model)
    return model.eval().to(device)


def device_of(model: FastViT | Engine) -> torch.device:
    """Where images are best brought before the model sees them."""
    return model.device if isinstance(model, Engine) else next(model.parameters()).device


def device_for(model: FastViT, device: torch.device | str | None, engine: str) -> torch.device:
    """The device that is meant, as `runnable` says; a ValueError if the engine does not run there."""
    if device is None:
        return device_of(model)
    chosen = choose_device(str(device) or ("cpu" if engine in RUNTIMES else ""))
    if engine in RUNTIMES and chosen.type != "cpu":
        raise ValueError(f"engine {engine} runs on the CPU, not on device {device}: choose cpu, or another engine")
    return chosen


def _check_form(model: FastViT, engine: str, precision: str, reparameterize: bool | None) -> None:
    """A ValueError for a form that cannot be run so."""
    unfused = reparameterize is False
    if unfused and (engine, precision) != PLAIN:
        raise ValueError(
            "unfused, a model runs in torch and float32 alone: leave out engine and precision, or reparameterize it"
        )
    if unfused and not fusible_blocks(model):
        raise ValueError("the model is fused already: running it unfused needs the weights that it was made of")


def calibration_images(folder: str | PathLike[str], preprocess: Preprocess) -> Tensor:
    """(N, 3, H, W): some hundreds of the images in a folder, evenly chosen over its classes; of large ones fewer.

    Raises:
        fastvit.images.io.ImageError: an image that cannot be read.
    """
    found = find_images([str(folder)])
    height, width = preprocess.size
    number = min(len(found), CALIBRATION, max(FEWEST, MOST_NUMBERS // (3 * height * width)))
    return preprocess.read(found[index] for index in evenly(number, len(found)))
