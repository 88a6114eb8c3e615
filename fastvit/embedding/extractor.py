"""Images -> features, by whatever engine."""

from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import loaded
from ..deploy.running import device_for, runnable
from ..models.fastvit import FastViT
from ..utils.copies import duplicate
from ..utils.digest import tensors_digest
from .config import EmbedConfig


class FeatureExtractor:
    """A model that returns features instead of classes.

    Attributes:
        name: what the user calls the model.
        preprocess: how its images are prepared.
        output: "features" or "head".
        width: D, the numbers of one image.
        digest: of the weights, whatever their file is called and whosever names it has.
        device: where it computes.
        engine: what runs it, once it is prepared.
        chosen: why that engine, if it was the fastest that was asked for.

    Raises:
        ValueError: the head's output is asked for of a model that has none.
        fastvit.WeightsError: no such model, or a damaged one.
    """

    def __init__(self, model: str | FastViT, config: EmbedConfig) -> None:
        self.config = config
        self.model = loaded(model, FastViT) if isinstance(model, str) else duplicate(model).float()
        self.name = model if isinstance(model, str) else self.model.pretrained_cfg.get("architecture", "FastViT")
        self.preprocess = self.model.preprocess
        self.digest = tensors_digest(self.model.state_dict())
        self.output = config.outputs or ("head" if self.model.returns_embedding else "features")
        if self.output == "head" and not self.model.num_classes:
            raise ValueError(f"{self.name}: has no head; leave out outputs, for the pooled features")
        if self.output == "features":
            self.model.reset_classifier(0)
        self.width = self.model.num_classes or self.model.head_hidden_size
        device = "" if isinstance(model, str) and config.device is None else config.device
        self.device = str(device_for(self.model, device, config.engine))
        self.engine, self.chosen = config.engine, ""
        self._run: Any = None

    def prepare(self, threads: int | None = None) -> None:
        """Reparameterize and convert, and try it: an engine compares itself with eager torch at its first call.

        Raises:
            ValueError: an engine that is not installed, has no such precision, or differs; or the output is not finite.
        """
        precision = self.config.precision
        self._run = runnable(
            self.model, device=self.device, engine=self.engine, precision=precision, threads=threads, inplace=True
        )
        self.engine, self.chosen = getattr(self._run, "name", self.engine), getattr(self._run, "chosen", "")
        self(torch.zeros(self.config.batch_size, *self.preprocess.size, 3, dtype=torch.uint8))

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> NDArray[numpy.floating]:
        """(B, H, W, 3) bytes -> (B, D) in the configured dtype.

        Raises:
            ValueError: not all of them are finite.
        """
        features: Tensor = self._run(self.preprocess.normalized(pixels.to(self.device))).float()
        if self.config.normalize:
            features = F.normalize(features)
        features = features.to(getattr(torch, self.config.dtype))
        if not features.isfinite().all():
            raise ValueError(
                f"{self.name}: the model returned NaN or infinity, or more than {self.config.dtype} holds; its weights "
                "may be corrupted, or dtype and precision should be float32"
            )
        return features.cpu().numpy()
