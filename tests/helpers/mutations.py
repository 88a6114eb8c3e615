"""Mistakes to plant: in which function which words become which others.

Run as a script, it plants each and prints which check catches it.
"""

import importlib
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Mutation:
    function: str  # module.function or module.Class.method, in fastvit.models
    name: str
    old: str
    new: str
    hidden: bool  # whether the obvious test, of a model at its initial values in float32, lets it through

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compile the function anew, where it stands, with the words exchanged."""
        module_name, *classes, name = self.function.split(".")
        module = importlib.import_module(f"fastvit.models.{module_name}")
        owner: Any = getattr(module, classes[0]) if classes else module
        source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, name)))
        if source.count(self.old) != 1:
            raise LookupError(f"{self.name}: {self.old!r} stands {source.count(self.old)} times in {self.function}")
        namespace: dict[str, Any] = {}
        exec(source.replace(self.old, self.new), vars(module), namespace)
        monkeypatch.setattr(owner, name, namespace[name])


HIDDEN, SEEN = True, False
_STATISTICS = "_exact(cast(Tensor, norm.running_mean)), _exact(cast(Tensor, norm.running_var))"
_WITHOUT = "self.children()) if branch is not getattr(self, '{}', None)]"
_MIXED = "x + self.scale * (self.mixer.affine() - self.norm.affine())"

_TABLE = {
    "affine.scale_and_shift": [
        ("running mean forgotten", " - scale * mean", "", HIDDEN),
        ("mean taken for the variance", _STATISTICS, _STATISTICS.replace("var", "mean"), SEEN),
        ("variance taken for the mean", _STATISTICS, _STATISTICS.replace("mean", "var"), SEEN),
        ("eps forgotten", " + norm.eps", "", HIDDEN),
        ("eps outside the root", "variance + norm.eps)", "variance) + norm.eps", HIDDEN),
        ("the norm's weight forgotten", "scale = weight / ", "scale = 1 / ", HIDDEN),
        (
            "layer norm's weight and bias forgotten",
            "_exact(norm.weight), _exact(norm.bias)\n",
            "_exact(norm.weight) ** 0, 0 * _exact(norm.bias)\n",
            HIDDEN,
        ),
    ],
    "affine._exact": [
        ("fused in float32", "torch.float64", "torch.float32", HIDDEN),
        ("fused in the model's own dtype", "torch.float64", "tensor.dtype", HIDDEN),
    ],
    "affine._pad": [
        (
            "small kernels in a corner",
            "[border for border in reversed(borders) for _ in range(2)]",
            "[0, 2 * borders[1], 0, 2 * borders[0]]",
            SEEN,
        ),
    ],
    "affine.Affine.identity": [
        ("identity across groups", ".repeat(groups, 1)", ".repeat_interleave(groups, 0)", HIDDEN),
    ],
    "affine.Affine.__rmul__": [
        ("bias not scaled", "scale * self.bias", "self.bias", HIDDEN),
    ],
    "affine.Affine.after": [
        ("shift before attention forgotten", " + self.weight @ shift", "", HIDDEN),
    ],
    "affine.Affine.layer": [
        ("kernels transposed", "Parameter(self.weight)", "Parameter(self.weight.mT if kernel else self.weight)", SEEN),
        ("kernels turned round", "(self.weight)", "(self.weight.flip(2, 3) if kernel else self.weight)", SEEN),
        ("stride lost", "width), stride, padding", "width), 1, padding", SEEN),
    ],
    "blocks.RepConv.affine": [
        ("skip forgotten", "self.children())]", _WITHOUT.format("skip"), SEEN),
        ("small branch forgotten", "self.children())]", _WITHOUT.format("small"), SEEN),
    ],
    "blocks.RepMixer.affine": [
        ("norm and mixer exchanged", "(self.mixer.affine() - self.norm.", "(self.norm.affine() - self.mixer.", HIDDEN),
        ("RepMixer's norm forgotten", " - self.norm.affine()", "", HIDDEN),
        (
            "RepMixer's bias counted twice",
            f"return {_MIXED}",
            f"x = {_MIXED}; return Affine(x.weight, 2 * x.bias)",
            HIDDEN,
        ),
        ("RepMixer's skip forgotten", "return x + ", "return ", SEEN),
    ],
    "blocks.PositionEncoding.affine": [
        ("position encoding's skip forgotten", "return ", "return torch.zeros(self.channels) * ", SEEN),
    ],
    "blocks.ScaledConv.affine": [
        ("layer scale of the MLP forgotten", "self.scale * ", "", SEEN),
    ],
    "blocks.ScaledLinear.affine": [
        ("layer scale of attention forgotten", "self.scale * ", "", SEEN),
    ],
    "reparam.fuse_children": [
        (
            "attention's norm left over",
            "(child, kinds)",
            "(child, kinds) and type(child).__name__ != 'NormLinear'",
            HIDDEN,
        ),
    ],
    # Not in the kernels, and so the same before and after: chance or timm tells.
    "layers.DropPath.forward": [
        ("drop path in eval mode", "not self.training or ", "", HIDDEN),
    ],
    "layers.SqueezeExcite.forward": [
        ("squeeze-excite's relu too late", "self.expand(F.relu(", "F.relu(self.expand(", HIDDEN),
    ],
    "layers.Attention.forward": [
        ("queries and keys exchanged", "(q, k, v)", "(k, q, v)", HIDDEN),
        ("queries and values exchanged", "q, k, v = qkv", "v, k, q = qkv", HIDDEN),
    ],
}
MUTATIONS = [Mutation(function, *row) for function, rows in _TABLE.items() for row in rows]


def main() -> None:
    from models.test_mutations import CHECKS, catches, obvious

    print(f"{'':40s} " + " ".join(f"{check.__name__:>13s}" for check in (obvious, *CHECKS)))
    for mutation in MUTATIONS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            mutation.plant(monkeypatch)
            cells = ["caught" if catches(check) else "." for check in (obvious, *CHECKS)]
        print(f"{mutation.name:40s} " + " ".join(f"{cell:>13s}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
