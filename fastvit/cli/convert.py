"""fastvit convert: a checkpoint of anybody's -> a file in the names, and of the form, that somebody else expects."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .labels import Labels, Prompts, model_of
from .options import Force, Json, check_free
from .output import failing, show_result, working


@Parameter(name="*", negative="")
@dataclass(frozen=True, kw_only=True)
class Target:
    """What is written, as `fastvit.convert` takes it.

    Attributes:
        names: Whose names the file has.
        reparameterize: Write the fused form, as far as those names have it.
        overparameterize: Write the unfused form: a fused model gets its training branches back.
        images: Images, folders or patterns to measure batch norm's statistics on, with --overparameterize; may be
            repeated. [default: noise]
        variant: Which it is of two variants that have the same shapes.
        dtype: Dtype of the weights of convolutions and linear layers.
    """

    names: Literal["fastvit", "timm", "apple"] = "fastvit"
    reparameterize: bool = False
    overparameterize: bool = False
    images: tuple[str, ...] | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


TARGET = Target()


def convert(
    source: Annotated[str, Parameter(help="A file, a folder, or a name that `fastvit models` lists.")],
    out: Annotated[Path, Parameter(help="The file to write: .safetensors; in others' names .pt or .pth.tar too.")],
    /,
    *,
    target: Target = TARGET,
    labels: Labels = "",
    prompts: Prompts = "",
    force: Force = False,
    json: Json = False,
) -> None:
    """Read a checkpoint, say what it is, and write it in other names or in another form.

    What was written is read again and compared with what was read: the last
    line of the report says how far their outputs differ.

    For example:

        fastvit convert mobileclip_s0.pt mci0.safetensors
        fastvit convert mobileclip2_s0 pets.safetensors --labels "a cat, a dog"
    """
    import torch

    from ..checkpoint import check_target
    from ..conversion import convert as run

    dtype = None if target.dtype == "float32" else getattr(torch, target.dtype)
    check_free(out, force)
    check_target(out, target.names)
    model = model_of(source, labels, prompts) if labels or prompts else source
    with working(f"converting {source}"), failing(OSError):
        report = run(model, out, **asdict(target) | {"dtype": dtype})
    show_result(replace(report, source=source), json)
