"""Pictures -> features, by whatever engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import cast

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .. import checkpoint
from ..deploy.engines.select import engine
from ..models.fastvit import FastViT
from ..models.reparam import reparameterize
from .config import Job

OUTPUTS = ("features", "head")
DTYPES = ("float32", "float16")
PLAIN = ("torch", "float32")


class FeatureNetwork:
    """The job's network, which gives features instead of classes.

    Attributes:
        preprocess: what the weights want.
        output: "features" or "head".
        width: D, the numbers of one picture.
        digest: of the weights, whatever their file is called and whosever names it has.

    Raises:
        ValueError: an unknown output or dtype, or the head's of a network that has none.
    """

    def __init__(self, job: Job) -> None:
        if job.output not in ("", *OUTPUTS) or job.dtype not in DTYPES:
            raise ValueError(
                f"--outputs {job.output or OUTPUTS[0]} --dtype {job.dtype}: expected --outputs {' or '.join(OUTPUTS)}, "
                f"and --dtype {' or '.join(DTYPES)}"
            )
        if job.precision == "int8":
            raise ValueError("--precision int8 changes features too much; use bfloat16, float16 or float32")
        self.job = job
        self.model = checkpoint.load(job.model)
        self.preprocess = self.model.preprocess
        self.digest = weights_digest(self.model)
        self.output = job.output or ("head" if _embeds(self.model) else "features")
        if self.output == "head" and not self.model.num_classes:
            raise ValueError(f"{job.model}: has no head; leave out --outputs head, for the pooled features")
        if self.output == "features":
            self.model.reset_classifier(0)
        self.width = self.model.num_classes or self.model.head_hidden_size
        self._run: Callable[[Tensor], Tensor] | None = None

    def fastest(self) -> tuple[str, str]:
        """The engine that "auto" means here, and why.

        Raises:
            fastvit.deploy.engines.EngineError: none runs in this precision.
        """
        chosen = engine(self.model.to(self.job.device), "auto", precision=self.job.precision)
        return chosen.name, chosen.chosen

    def prepare(self, threads: int | None = None) -> None:
        """Fold and convert, and try it: an engine compares itself with eager torch at its first call.

        Raises:
            ValueError: what comes out is not finite.
            fastvit.deploy.engines.EngineError: an engine that is not installed, has no such precision, or differs.
        """
        model = self.model.to(self.job.device)
        if (self.job.engine, self.job.precision) == PLAIN:
            self._run = reparameterize(model, inplace=True).to(memory_format=torch.channels_last)
        else:
            run = engine(model, self.job.engine, precision=self.job.precision, threads=threads)
            self._run = cast("Callable[[Tensor], Tensor]", run)  # a FastViT gives no list
        self([torch.zeros(*self.preprocess.size, 3, dtype=torch.uint8)] * self.job.batch_size)

    @torch.inference_mode()
    def __call__(self, pixels: Sequence[Tensor]) -> NDArray[numpy.floating]:
        """B pictures of (H, W, 3) bytes -> (B, D) in the job's dtype.

        Raises:
            ValueError: not all of them are finite.
        """
        assert self._run is not None
        images = self.preprocess.normalized(torch.stack(list(pixels)).to(self.job.device))
        features = self._run(images).float()
        if self.job.normalize:
            features = F.normalize(features)
        features = features.to(getattr(torch, self.job.dtype))
        if not features.isfinite().all():
            raise ValueError(
                f"{self.job.model}: gives NaN or infinity, or more than {self.job.dtype} holds; its weights are "
                "damaged, or use --dtype float32 --precision float32"
            )
        return cast("NDArray[numpy.floating]", features.cpu().numpy())


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of the names and bytes of all parameters and statistics, in order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _embeds(model: FastViT) -> bool:
    """Whether its head gives what is compared with texts or other pictures, rather than classes."""
    own = model.num_classes == model.config.num_classes
    return model.config.embeds and own and not model.pretrained_cfg.get("label_names")
