"""The options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from ..utils.text import STANDARD_INPUT
from .output import note, working

if TYPE_CHECKING:
    from ..deploy.engines import Engine
    from ..models.fastvit import FastViT

HYPHEN = "\N{HYPHEN}"  # stands for a lone -, standard input, which cyclopts would take for an option
RUNNING = Group("How the model runs", sort_key=50)  # below what only one command has

ModelName = Annotated[str, Parameter(help="A name that `fastvit models` lists, a weights file, or a folder of one.")]
LabelledData = Annotated[
    str,
    Parameter(
        help="A folder, zip or tar with SPLIT/CLASS/*.jpg or CLASS/*.jpg; WebDataset's shards as "
        "'FOLDER/{split}-{000..127}.tar'; torch/NAME:FOLDER of torchvision; hfds/NAME of Hugging Face."
    ),
]
MaxUnreadable = Annotated[
    int, Parameter(validator=Number(gte=0), help="Images that may be left out, and listed, since they cannot be read.")
]
Json = Annotated[bool, Parameter(negative="", help="Print the result as JSON.")]
BatchSize = Annotated[int, Parameter(validator=Number(gte=1), group=RUNNING, help="Images computed at a time.")]
Reparameterize = Annotated[
    bool, Parameter(group=RUNNING, help="Run the model's fused form: faster, with the same results.")
]


@Parameter(name="*", group=RUNNING, negative="")
@dataclass(frozen=True, kw_only=True)
class Running:
    """What runs the model, as `fastvit.deploy.running.runnable` takes it, and how images are decoded for it.

    A command has it as `running: Running = RUNS`.

    Attributes:
        device: Where to compute: cpu, cuda, mps ... [default: the fastest one]
        engine: What runs the model: torch, compile, onnxruntime, openvino, or auto, the fastest one here.
        precision: Precision of the arithmetic: float32, bfloat16, float16 or int8; not every engine has every one.
        fast_decoding: Decode large JPEGs at a part of their size: much faster, with slightly different results.
    """

    device: str = ""
    engine: str = "torch"
    precision: str = "float32"
    fast_decoding: bool = False

    def prepare(self, model: FastViT, **more: Any) -> FastViT | Engine:
        """What runs `model`, which is used up; `more` is for `runnable`. What "auto" chose is noted.

        Raises:
            ValueError: options that do not go together, or an engine that cannot be used here.
        """
        from ..deploy.running import PLAIN, runnable

        engine, precision = self.engine, self.precision
        with working(f"preparing {engine} in {precision}", quiet=(engine, precision) == PLAIN):
            prepared = runnable(model, device=self.device, engine=engine, precision=precision, inplace=True, **more)
        if chosen := getattr(prepared, "chosen", ""):
            note(chosen)
        return prepared


RUNS = Running()


def marked(words: list[str]) -> list[str]:
    """The command line's words, with a lone - as cyclopts takes it for a word."""
    return [HYPHEN if word == STANDARD_INPUT else word for word in words]


def unmarked(words: list[str]) -> list[str]:
    """Words as they were typed."""
    return [STANDARD_INPUT if word == HYPHEN else word for word in words]
