"""A run: its state, and one update after the other.

The place in a run is the number of complete updates, and every random draw follows from it and the seed: the order of
the pictures and their augmentation (fastvit.data.batches), mixup, drop path. So a run that was killed and started again
from a checkpoint ends with the same weights as one that was never interrupted, on a CPU bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm.optim
import torch
from torch import Tensor

from ..atomic import check_writable
from ..checkpoint import save
from ..data import (
    Batch,
    DataError,
    Draws,
    Selected,
    Source,
    TrainingPictures,
    check_labels,
    check_same_classes,
    evaluation,
    held_out,
    training,
    training_batches,
)
from ..data.batches import Draw, seed_everything
from ..model import FastViT
from ..recipe import Recipe, RecipeError
from .average import Average
from .checkpoints import Checkpoints
from .curves import Line, Metrics, can_draw, draw
from .judge import Judge
from .processes import Processes
from .signals import StopSignals
from .start import starting_network
from .synchronized import synchronize
from .teacher import distillation_loss, make_teacher

LOG = logging.getLogger("fastvit")
LINE_EVERY = 10  # updates: between two lines of metrics.jsonl, and two looks at whether to stop or save
CALIBRATION = 64  # training pictures from which the norms of folded weights take their statistics
TRACKERS = ("tensorboard", "wandb")

Report = Callable[[int, float], None]


class Stopped(Exception):  # noqa: N818
    """The run was told to stop by a signal, and its state is saved."""

    def __init__(self, signal: int, updates: int) -> None:
        super().__init__(f"stopped after update {updates}")
        self.signal, self.updates = signal, updates


class Run:
    """A recipe at work, in this process and, under torchrun or accelerate launch, in others.

    Args:
        recipe: what is done.
        data, validation: what `fastvit.data.opening` takes; without `validation`, data/val or data/test.
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
        self.source = training(data, num_classes=recipe.num_classes or None)
        self.held_out = _held_out(data, validation, recipe.num_classes or len(self.source.classes))
        check_labels(self.source)
        check_same_classes(self.source, self.held_out)
        if recipe.pictures:
            self.source = Selected.spread(self.source, recipe.pictures)
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
            self.metrics.rewind(self.updates)
        self.metrics.lines = self.processes.same(self.metrics.lines)

    def _network(self, *, resumed: bool) -> FastViT:
        """What the run starts from."""
        return starting_network(self.recipe, len(self.source.classes), self.some_pictures, resumed=resumed)

    def some_pictures(self, most: int = CALIBRATION) -> Tensor:
        """(B, 3, H, W): augmented training pictures, spread over the classes, the same every time."""
        number = min(most, len(self.source))
        pictures = TrainingPictures(self.source, self.recipe.transform, self.recipe.seed)
        chosen = [pictures[Draw(0, index * len(self.source) // number)] for index in range(number)]
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

    # Training

    def train(self, report: Report | None = None, epoch_done: Callable[[Line], None] | None = None) -> None:
        """All that is not done yet; `report` gets (images, loss) after each update, `epoch_done` each epoch's line.

        Raises:
            Stopped: by a signal; the state is saved.
            RecipeError: the loss is no number any more.
            DataError: more pictures than `most_unreadable` cannot be read.
            OSError: the disk is full.
        """
        self._saved = self._told = time.perf_counter()
        self.processes.start_tracking(asdict(self.recipe))
        with StopSignals() as signals:
            batches = self._batches()
            while self.updates < self.total:
                loss = self._update(batches)
                self.updates += 1
                self._note(loss, report)
                if self.updates % self.steps == 0:
                    line = self._end_epoch()
                    if epoch_done:
                        epoch_done(line)
                elif self.updates % LINE_EVERY == 0 and self._due(signals):
                    self.save()
                self._stop_if_told(signals)
        self.processes.end()

    def _batches(self) -> Iterator[Batch]:
        recipe, processes = self.recipe, self.processes
        draws = Draws(
            self.source,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            seed=recipe.seed,
            start=self.updates,
            process=processes.index,
            processes=processes.number,
            parts=recipe.accumulate,
        )
        pictures = TrainingPictures(self.source, partial(recipe.transform, preprocess=self.preprocess), recipe.seed)
        return iter(training_batches(pictures, draws, workers=self.workers, pin=self.device.type == "cuda"))

    def _update(self, batches: Iterator[Batch]) -> Tensor:
        """One change of the weights -> the loss, a scalar."""
        recipe = self.recipe
        self.schedule.step_update(self.updates)  # a function of the update alone, so there is no state of it to keep
        whole = torch.zeros((), device=self.device, dtype=torch.float32)
        for part in range(recipe.accumulate):
            batch = next(batches)
            self._count_unreadable(batch.unreadable)
            seed_everything(recipe.seed, self.updates, part, self.processes.index)
            last = part == recipe.accumulate - 1
            with nullcontext() if last else self.processes.accelerator.no_sync(self.model):
                loss = self._loss(batch.images, batch.labels) / recipe.accumulate
                self.processes.accelerator.backward(loss)
            whole += loss.detach()
        if recipe.clip_gradient:
            self.processes.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.network, self.updates + 1)
        return whole

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (B, 3, H, W), labels (B) -> a scalar."""
        recipe = self.recipe
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        images = images.to(self.device, memory_format=layout, non_blocking=True)
        targets = labels.to(self.device, non_blocking=True)
        if self.mixer:
            images, targets = self.mixer(images, targets)
        if recipe.precision == "float64":
            images = images.double()
        logits = self.model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss: Tensor = self.loss(logits, targets)
        if self.teacher:
            with self.processes.accelerator.autocast():
                taught = self.teacher(images)
            share = recipe.distillation_alpha
            loss = (1 - share) * loss + share * distillation_loss(recipe, logits, taught)
        return loss

    def _note(self, loss: Tensor, report: Report | None) -> None:
        """Count a loss; every few updates, write a line with their mean."""
        if self.device.type == "cpu":
            self._last_loss = loss.item()
        else:  # a look at it would wait for the device
            self._sums = self._sums.to(self.device, torch.float32)
        self._sums += loss.to(self._sums)
        if self.updates % LINE_EVERY == 0:
            line = self._line(self.processes.mean(self._sums)[0].item() / LINE_EVERY)
            self._sums[0] = 0
            self.metrics.add(line, write=self.processes.main)
            self.processes.track(line, self.updates)
            if self.device.type != "cpu":
                self._last_loss = line["loss"]
        if not math.isfinite(self._last_loss):
            raise RecipeError(
                f"the loss is {self._last_loss} at update {self.updates - 1}; try a lower --learning-rate or "
                "--clip-gradient 1"
            )
        if report:
            report(self.recipe.batch_size, self._last_loss)

    _last_loss = 0.0  # on a device, the last line's

    def _line(self, loss: float) -> Line:
        now, images = time.perf_counter(), LINE_EVERY * self.recipe.batch_size
        seconds, self._told = now - self._told, now
        return {
            "update": self.updates,
            "epoch": round(self.updates / self.steps, 4),
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": round(images / seconds, 1),
        }

    def _count_unreadable(self, lines: list[str]) -> None:
        new = [line for line in lines if line not in self.unreadable]
        self.unreadable |= dict.fromkeys(new)
        if len(self.unreadable) > self.recipe.most_unreadable:
            raise DataError(
                f"{len(self.unreadable)} pictures cannot be read, the last of them {new[-1]}; "
                f"--most-unreadable is {self.recipe.most_unreadable}"
            )

    def _end_epoch(self) -> Line:
        started = time.perf_counter()
        held_out = self.evaluate()
        self.unreadable = dict.fromkeys(self.processes.gathered(list(self.unreadable)))
        self._count_unreadable([])
        line = {
            "epoch": self.epoch,
            "update": self.updates,
            "size": self.recipe.size_at(self.epoch - 1),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "loss": self.processes.mean(self._sums)[1].item() / self.steps,
            **held_out,
            "unreadable": len(self.unreadable),
        }
        self._sums[1] = 0
        self.metrics.add(line, write=self.processes.main)
        if self.processes.main and can_draw():
            draw(self.metrics.lines, self.output / "curves.png", f"top-1 {line['top1']:.2f} %")
        self.processes.track(line, self.updates)
        self.save()
        self._told += time.perf_counter() - started  # it is no part of the training's images per second
        return line

    def evaluate(self) -> Line:
        """What the averaged network makes of the held-out pictures: "top1", "top5" in %, "held_out_loss"."""
        return self.judge(self.processes.whole(self.average.tensors), self._count_unreadable)

    # Checkpoints

    def _due(self, signals: StopSignals) -> bool:
        return self.processes.any(time.perf_counter() - self._saved > 60 * self.save_every)

    def _stop_if_told(self, signals: StopSignals) -> None:
        """All processes stop after the same update: they ask each other, those on a device not every time."""
        if self.processes.number > 1 and self.updates % LINE_EVERY and self.device.type != "cpu":
            return
        told = self.processes.most(int(signals.received or 0))
        if told and self.updates < self.total:
            if self.updates % self.steps:
                self.save()
            raise Stopped(told, self.updates)

    def save(self) -> None:
        """The averaged weights, and after them the state: each file is whole at every moment."""
        average = self.processes.whole(self.average.tensors)
        state = {
            "updates": self.updates,
            "recipe": asdict(self.recipe),
            "classes": self.source.classes,
            "pictures": len(self.source),
            "sums": self.processes.mean(self._sums).cpu(),
            "unreadable": list(self.unreadable),
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
    return evaluation(validation, num_classes=classes) if validation else held_out(data, num_classes=classes)
