"""The checkpoints that can be had by name."""

from pathlib import Path

# Weights that ship with the package.
BUNDLED = {"fastvit_t8.cifar10": "fastvit_t8.cifar10.safetensors"}


def bundled(name: str) -> Path:
    """Where the file of a bundled checkpoint is: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / BUNDLED[name]
    return installed if installed.exists() else Path(__file__).parents[2] / "weights" / BUNDLED[name]
