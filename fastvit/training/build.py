"""The state of a run: what it is of, and how it is kept on the disk."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm.optim
import torch
from torch import Tensor

from ..checkpoint import save
from ..data import (
    DataError,
    Draw,
    Selected,
    Source,
    TrainingImages,
    check_labels,
    check_range,
    check_same_classes,
    training_source,
    validation_source,
)
from ..models.fastvit import FastViT
from ..utils.atomic import check_writable, remove_leftovers
from ..utils.sampling import evenly
from .checkpoints import Checkpoints
from .distillation import make_teacher
from .distributed import Processes
from .ema import Average
from .initial_weights import starting_network
from .judge import Judge
from .metrics import Line, Metrics
from .recipe import Recipe, RecipeError
from .synchronized import synchronize

WRITTEN = ("model.safetensors", "metrics.jsonl", "curves.png", "recipe.yaml")
CALIBRATION = 64  # training pictures from which the norms of fused weights take their statistics


class State:
    """Data, network, average, optimizer and place of a run, as new or as the newest checkpoint has them.

    Args:
        recipe: what is done.
        data, validation: what `fastvit.data.resolve` takes; without `validation`, data/val or data/test.
        output: the folder that receives everything.
        device: "cpu", "cuda", ...; "" is the fastest.
        workers: processes that read pictures, for each process that trains.
        tracker: "tensorboard", "wandb" or "".
        save_every: minutes between checkpoints within an epoch; after each epoch there is one anyway.
        keep: how many checkpoints stay.

    Raises:
        RecipeError: an option that cannot work, or a checkpoint of another recipe.
        fastvit.data.DataError: what is wrong with the data.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: str | Path,
        output: Path,
        *,
        validation: str = "",
        device: str = "",
        workers: int = 2,
        tracker: str = "",
        save_every: float = 15.0,
        keep: int = 2,
    ) -> None:
        self.recipe, self.output, self.workers, self.save_every = recipe, output, workers, save_every
        check_output(output)
        self.processes = Processes(device, recipe.precision, tracker, output)
        self.device = self.processes.device
        self.source = training_source(data, num_classes=recipe.num_classes or None)
        self.held_out = _held_out(data, validation, recipe.num_classes or len(self.source.classes))
        check_labels(self.source)
        check_range(self.held_out)
        check_same_classes(self.source, self.held_out)
        if recipe.pictures:
            self.source = Selected.evenly(self.source, recipe.pictures)
        self.steps = len(self.source) // recipe.batch_size
        self._check_batch(data)
        output.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics(output / "metrics.jsonl")
        self.checkpoints = Checkpoints(output / "checkpoints", keep)
        self.updates = 0
        self.unreadable: dict[str, None] = {}
        self._sums = torch.zeros(2, dtype=torch.float64, device="cpu")  # of losses: since the last line, of the epoch
        self._build()

    def _check_batch(self, data: str | Path) -> None:
        recipe, number = self.recipe, self.processes.number
        if not self.steps:
            few = f"{data}: {len(self.source)} pictures are less than one batch of {recipe.batch_size}"
            raise DataError(f"{few}; lower --batch-size")
        parts = number * recipe.accumulate
        pairs = 2 if recipe.mixup or recipe.cutmix else 1
        if recipe.batch_size % (parts * pairs):
            raise RecipeError(
                f"batch_size={recipe.batch_size}: {number} processes take it in {recipe.accumulate} parts each; "
                f"expected a multiple of {parts * pairs}"
            )

    def _build(self) -> None:
        """The network, its average and its optimizer, in the state of the newest checkpoint if there is one."""
        recipe, classes = self.recipe, self.source.classes
        found = self.checkpoints.newest()
        if found:
            self._check_same_run(*found)
        if self.processes.any(self.updates != self.processes.same(self.updates)):
            raise RecipeError(
                f"{self.output}: not the same for all processes; expected a folder that all machines share"
            )
        network = self._network(resumed=bool(found))
        size = (recipe.last_size, recipe.last_size)
        self.preprocess = replace(network.preprocess, size=size, crop=recipe.crop, crop_mode="center")
        network.pretrained_cfg |= self.preprocess.to_cfg()
        network.pretrained_cfg |= {"num_classes": len(classes), "label_names": list(classes), "license": None}
        network.pretrained_cfg["input_size"] = (3, *size)
        self.judge = Judge(network, self.held_out, self.preprocess, self.processes, recipe, self.workers)
        innermost = recipe.channels_last and not self.processes.sharded  # FSDP2 wants its parameters contiguous
        layout = torch.channels_last if innermost else torch.contiguous_format
        network = network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        if recipe.precision == "float64":
            network = network.double()
        if recipe.gradient_checkpointing:
            network.set_grad_checkpointing()
        if recipe.sync_batch_norm and self.processes.number > 1:
            synchronize(network)
        optimizer = timm.optim.create_optimizer_v2(
            network,
            recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay or None,
        )
        self.schedule = recipe.schedule(optimizer, self.steps)
        if recipe.compile:
            network.compile()
        self.network: FastViT = network.train()
        self.model, self.optimizer = self.processes.prepare(network, optimizer)
        self.average = Average(self.network, recipe.ema_decay)
        self.mixer, self.loss = recipe.mixer(len(classes)), recipe.loss()
        teacher = make_teacher(recipe, self.preprocess, len(classes)) if self.updates < self.total else None
        self.teacher = teacher.to(self.device, memory_format=layout) if teacher else None  # type: ignore[call-overload]
        if found:
            self._restore(found[1])
        if self.processes.main:
            for name in WRITTEN:
                remove_leftovers(self.output / name)
            self.metrics.rewind(self.updates)
        self.metrics.lines = self.processes.same(self.metrics.lines)

    def _network(self, *, resumed: bool) -> FastViT:
        """What the run starts from."""
        return starting_network(self.recipe, len(self.source.classes), self.some_pictures, resumed=resumed)

    def some_pictures(self, most: int = CALIBRATION) -> Tensor:
        """(B, 3, H, W): augmented training pictures, spread over the classes, the same every time."""
        pictures = TrainingImages(self.source, self.recipe.transform, self.recipe.seed)
        chosen = [pictures[Draw(0, index)] for index in evenly(most, len(self.source))]
        return torch.stack([image for image, _, _ in chosen])

    # What is known of it

    @property
    def total(self) -> int:
        """The number of updates of the whole run."""
        return self.recipe.epochs * self.steps

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self.updates // self.steps

    @property
    def history(self) -> list[Line]:
        """A line for each complete epoch."""
        return self.metrics.epochs

    # On the disk

    def save(self) -> None:
        """The averaged weights, and after them the state: each file is whole at every moment."""
        average = self.processes.whole(self.average.tensors)
        unreadable = dict.fromkeys(self.processes.gathered(list(self.unreadable)))
        state = {
            "updates": self.updates,
            "recipe": asdict(self.recipe),
            "classes": self.source.classes,
            "pictures": len(self.source),
            "sums": self.processes.mean(self._sums).cpu(),
            "unreadable": list(unreadable),
            "average": average,
            **self.processes.state(self.network, self.optimizer),
        }
        if self.processes.main:
            self.metrics.flush()
            save(self.judge.holding(average), self.output / "model.safetensors")
            self.checkpoints.save(self.updates, state)
        self.processes.wait()
        self._saved = time.perf_counter()

    def _check_same_run(self, path: Path, state: dict[str, Any]) -> None:
        try:
            then = {**asdict(Recipe(**state["recipe"])), "pictures": state["pictures"], "classes": state["classes"]}
        except (KeyError, TypeError):
            raise RecipeError(f"{path}: of another version; remove {path.parent} to start anew") from None
        now = {**asdict(self.recipe), "pictures": len(self.source), "classes": self.source.classes}
        if differing := [name for name in now if now[name] != then.get(name)]:
            changes = ", ".join(f"{name} was {then.get(name)!r}, is {now[name]!r}" for name in differing)
            raise RecipeError(f"{path} is of another run: {changes}; give the same options or another --output")
        self.updates = state["updates"]

    def _restore(self, state: dict[str, Any]) -> None:
        self.processes.restore(self.network, self.optimizer, state)
        self.processes.load(self.average.tensors, state["average"])
        self._sums.copy_(state["sums"])
        self.unreadable = dict.fromkeys(state["unreadable"])


def check_output(folder: Path) -> None:
    """A ValueError, before any work is done, if it cannot hold a run."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file, expected a folder; choose another --output")
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    check_writable(there / "model.safetensors")


def _held_out(data: str | Path, validation: str, classes: int) -> Source:
    return validation_source(validation or data, or_whole=bool(validation), num_classes=classes)
