"""The options that say what runs a network, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .output import note, working

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastvit.images.preprocess import Preprocess
    from fastvit.models.fastvit import FastViT

RUNNING = Group("How the model runs", sort_key=50)  # below what only one command has

ModelName = Annotated[str, Parameter(help="A name that `fastvit models` lists, a weights file, or a folder of one.")]
Json = Annotated[bool, Parameter(negative="", help="Print the result as JSON.")]
BatchSize = Annotated[int, Parameter(validator=Number(gte=1), help="Images computed at a time.")]
DeviceName = Annotated[
    str, Parameter("--device", group=RUNNING, help="cpu, cuda, mps ... [default: the fastest device there is]")
]
EngineName = Annotated[
    str,
    Parameter(
        "--engine",
        group=RUNNING,
        help="What runs the model: torch, compile, onnxruntime, openvino, or auto, the fastest here in that precision.",
    ),
]
Precision = Annotated[
    str,
    Parameter(
        "--precision", group=RUNNING, help="Of the arithmetic: float32, bfloat16, float16 or int8; no engine has all."
    ),
]
FastDecoding = Annotated[
    bool,
    Parameter(
        "--fast-decoding",
        group=RUNNING,
        negative="",
        help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, still twice what the model sees: several times "
        "faster for photographs, with slightly different probabilities.",
    ),
]

PLAIN = ("torch", "float32")
PROCESSOR_ONLY = ("onnxruntime", "openvino")
CALIBRATION = 300  # pictures
MOST_NUMBERS = 2**27  # in all of them: half a gigabyte


def device_for(name: str, engine: str) -> torch.device:
    """The device of that name, or the fastest one that the engine runs on; a ValueError if there is none."""
    from fastvit.utils.devices import choose_device

    device = choose_device(name or ("cpu" if engine in PROCESSOR_ONLY else ""))
    if engine in PROCESSOR_ONLY and device.type != "cpu":
        raise ValueError(
            f"--device {name}: --engine {engine} runs on the processor; give --device cpu, or another engine"
        )
    return device


def check_unfused(engine: str, precision: str) -> None:
    """A ValueError, if an unfused network was to run in anything but torch and float32."""
    if (engine, precision) != PLAIN:
        raise ValueError("--unfused and --compare are for torch in float32: leave out --engine and --precision")


def runner(
    network: FastViT,
    engine: str,
    precision: str,
    *,
    fused: bool = True,
    calibration: Callable[[], Tensor] | None = None,
    keep: Sequence[str] = (),
) -> Callable[[Tensor], Tensor]:
    """What answers: images (B, 3, H, W) on the network's device -> logits (B, classes). The network is used up.

    In torch and float32 it is the network itself, fused unless told otherwise, and ready at once; else an engine,
    and for int8 `calibration` gives the pictures.

    Raises:
        ValueError: options that do not go together.
        fastvit.deploy.engines.EngineError: an engine that is not installed, or has no such precision.
    """
    import torch

    from fastvit.deploy.engines.select import engine as make_engine
    from fastvit.models.reparam import reparameterize

    if not fused:
        check_unfused(engine, precision)
    if precision == "int8" and calibration is None:
        raise ValueError("--precision int8 needs pictures to calibrate with: fastvit evaluate --calibration FOLDER")
    if precision != "int8" and calibration is not None:
        raise ValueError(f"--calibration is for --precision int8, and it is {precision}: leave it out")
    if keep and precision != "int8":
        raise ValueError(f"--keep is for --precision int8, and it is {precision}: leave it out")
    if (engine, precision) == PLAIN:
        network = reparameterize(network, inplace=True) if fused else network
        return network.to(memory_format=torch.channels_last)
    with working(f"preparing {engine} in {precision}"):
        seen = calibration() if calibration else None
        chosen = make_engine(network, engine, precision=precision, calibration=seen, keep=keep)
    if chosen.chosen:
        note(chosen.chosen)
    return chosen  # type: ignore[return-value]  # a FastViT with a classifier gives no list


def calibration_images(folder: Path, preprocess: Preprocess) -> Tensor:
    """(N, 3, H, W): some hundreds of the pictures in a folder, evenly chosen over its classes; of large ones fewer."""
    import torch

    from fastvit.deploy.quantize import FEWEST
    from fastvit.images.io import find_images, read_image

    found = find_images([str(folder)])
    height, width = preprocess.size
    number = min(len(found), CALIBRATION, max(FEWEST, MOST_NUMBERS // (3 * height * width)))
    images = torch.empty(number, 3, height, width)
    for index in range(number):
        images[index] = preprocess(read_image(found[index * len(found) // number]))
    return images
