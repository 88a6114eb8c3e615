"""The options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from .output import note, working

if TYPE_CHECKING:
    from ..deploy.engines import Engine
    from ..models.fastvit import FastViT

RUNNING = Group("How the model runs", sort_key=50)  # below what only one command has

ModelName = Annotated[
    str, Parameter(help="A name that `fastvit models` lists, a weights file, a folder of one, or hf-hub:USER/NAME.")
]
LabelledData = Annotated[
    str,
    Parameter(
        help="A folder, zip or tar with SPLIT/CLASS/*.jpg or CLASS/*.jpg; WebDataset's shards as "
        "'FOLDER/{split}-{000..127}.tar'; torch/NAME:FOLDER of torchvision; 'hfds/NAME?image=COLUMN&label=COLUMN' of "
        "Hugging Face, where ? and on may be left out. SPLIT is train; val, valid, validation, dev or eval; or test."
    ),
]
Json = Annotated[bool, Parameter(help="Print the result as JSON.")]
Force = Annotated[bool, Parameter(help="Replace a file that is there already.")]
BatchSize = Annotated[PositiveInt, Parameter(group=RUNNING, help="Images computed at a time.")]


def check_free(path: Path | None, force: bool, *others: Path, check: Callable[[Path], object] | None = None) -> None:
    """Refuse to replace a file, or one of the others that belong to it, unless that is asked for.

    Args:
        path: of the file, if one is to be written.
        force: whether it is asked for.
        others: the files.
        check: refuses a path, before all else.

    Raises:
        ValueError: one is there; or that is asked for, and none is written.
    """
    if path and check:
        check(path)
    if force and not path:
        raise ValueError("--force replaces the file that is written, and none is: name one, or leave it out")
    if path and not force and (there := [each for each in (path, *others) if os.path.lexists(each)]):
        raise ValueError(f"{there[0]}: is there already; choose another name, or replace it with --force")


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True, kw_only=True)
class Running:
    """What runs the model, as `fastvit.deploy.running.runnable` takes it, and how images are decoded for it.

    A command has it as `running: Running = RUNS`.

    Attributes:
        device: Where to compute: cpu, cuda, mps ... [default: the fastest one]
        engine: What runs the model: torch, compile, onnxruntime, openvino, or auto, the fastest one here.
        precision: Precision of the arithmetic: float32, bfloat16 or float16; not every engine has all.
        reparameterize: Run the model's fused form: faster, with the same results.
        fast_decoding: Decode large JPEGs at a part of their size: much faster, with slightly different results.
    """

    device: str = ""
    engine: str = "torch"
    precision: str = "float32"
    reparameterize: Annotated[bool, Parameter(negative_bool="no-")] = True
    fast_decoding: bool = False

    def prepare(self, model: FastViT, **more: Any) -> FastViT | Engine:
        """What runs `model`, which is used up; `more` is for `runnable`. What "auto" chose is noted.

        Raises:
            ValueError: options that do not go together, or an engine that cannot be used here.
        """
        from ..deploy.running import PLAIN, runnable

        if self.precision == "int8" and "calibration" not in more:
            raise ValueError(
                "precision int8 needs images to calibrate with, which only evaluate takes: choose float32, bfloat16 or "
                "float16"
            )
        how = vars(self) | more
        del how["fast_decoding"]  # which is not about the model
        with working(f"preparing {self.engine} in {self.precision}", quiet=(self.engine, self.precision) == PLAIN):
            prepared = runnable(model, inplace=True, **how)
        if chosen := getattr(prepared, "chosen", ""):
            note(chosen)
        return prepared


RUNS = Running()
