"""A run: its state, and one update after the other.

The place in a run is the number of complete updates, and every random draw follows from it and the seed: the order of
the images and their augmentation (fastvit.data.training_images), mixup, drop path. So a run that was killed and started
again from a checkpoint ends with the same weights as one that was never interrupted, on a CPU bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Batch, DataError, StepSampler, TrainingImages, reading, seed_everything, training_loader
from .build import State
from .distillation import distillation_loss
from .metrics import Line, can_draw, draw
from .recipe import RecipeError
from .signals import StopSignals

LINE_EVERY = 10  # updates: between two lines of metrics.jsonl, and two looks at whether to stop or save

Report = Callable[[int, float], None]


class Stopped(Exception):  # noqa: N818
    """The run was told to stop by a signal, and its state is saved."""

    def __init__(self, signal: int, updates: int) -> None:
        super().__init__(f"stopped after update {updates}")
        self.signal, self.updates = signal, updates


class Run(State):
    """A recipe at work, in this process and, under torchrun or accelerate launch, in others; made as `State` says."""

    def train(self, report: Report | None = None, epoch_done: Callable[[Line], None] | None = None) -> None:
        """All that is not done yet; `report` gets (images, loss) after each update, `epoch_done` each epoch's line.

        On a device the loss is that of the last line of metrics.jsonl, and NaN before the first.

        Raises:
            Stopped: by a signal; the state is saved.
            RecipeError: the loss is no number any more.
            DataError: more pictures than `most_unreadable` cannot be read.
            OSError: the disk is full.
        """
        self._saved = self._told = time.perf_counter()
        self._told_updates = self.updates
        self._last_loss = math.nan  # nobody looked yet
        self.processes.start_tracking(asdict(self.recipe))
        try:
            self._train(report, epoch_done)
        finally:
            self.processes.end()

    def _train(self, report: Report | None, epoch_done: Callable[[Line], None] | None) -> None:
        with StopSignals() as signals, reading(self._batches()) as batches:
            while self.updates < self.total:
                loss = self._update(batches)
                self.updates += 1
                self._note(loss, report)
                if self.updates % self.steps == 0:
                    line = self._end_epoch()
                    if epoch_done:
                        epoch_done(line)
                elif self.updates % LINE_EVERY == 0 and self._due():
                    with self._not_counted():
                        self.save()
                self._stop_if_told(signals)

    def _batches(self) -> DataLoader[Batch]:
        recipe, processes = self.recipe, self.processes
        draws = StepSampler(
            self.source,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            seed=recipe.seed,
            start=self.updates,
            rank=processes.index,
            world_size=processes.number,
            micro_batches=recipe.accumulate,
        )
        pictures = TrainingImages(self.source, partial(recipe.transform, preprocess=self.preprocess), recipe.seed)
        return training_loader(pictures, draws, workers=self.workers, pin=self.device.type == "cuda")

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
                taught = self.teacher(images.float())
            share = recipe.distillation_alpha
            loss = (1 - share) * loss + share * distillation_loss(recipe, logits, taught)
        return loss

    def _note(self, loss: Tensor, report: Report | None) -> None:
        """Count a loss; every few updates, write a line with their mean."""
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            self._look_at(loss.item())
        else:  # a look at it would wait for the device
            self._sums = self._sums.to(self.device, torch.float32)
        self._sums += loss.to(self._sums)
        if self.updates % LINE_EVERY == 0:
            line = self._line(self.processes.mean(self._sums)[0].item() / LINE_EVERY)
            self._sums[0] = 0
            self.metrics.add(line, write=self.processes.main)
            self.processes.track(line, self.updates)
            if not on_cpu:
                self._look_at(line["loss"])
        if report:
            report(self.recipe.batch_size, self._last_loss)

    def _look_at(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RecipeError(
                f"the loss is {loss} at update {self.updates - 1}; try a lower --learning-rate or --clip-gradient 1"
            )
        self._last_loss = loss

    def _loss_of_epoch(self) -> float:
        """The mean so far, looked at before anything is written over weights that are better."""
        loss = self.processes.mean(self._sums)[1].item() / ((self.updates - 1) % self.steps + 1)
        self._look_at(loss)
        return loss

    def _line(self, loss: float) -> Line:
        now, images = time.perf_counter(), (self.updates - self._told_updates) * self.recipe.batch_size
        seconds, self._told, self._told_updates = now - self._told, now, self.updates
        return {
            "update": self.updates,
            "epoch": round(self.updates / self.steps, 4),
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": round(images / seconds, 1),
        }

    @contextmanager
    def _not_counted(self) -> Iterator[None]:
        """What is done meanwhile is no part of the images per second."""
        started = time.perf_counter()
        yield
        self._told += time.perf_counter() - started

    def _count_unreadable(self, lines: list[str]) -> None:
        self.unreadable |= dict.fromkeys(lines)
        if len(self.unreadable) > self.recipe.most_unreadable:
            raise DataError(
                f"{len(self.unreadable)} pictures cannot be read, the last of them {list(self.unreadable)[-1]}; "
                f"--most-unreadable is {self.recipe.most_unreadable}"
            )

    def _end_epoch(self) -> Line:
        loss = self._loss_of_epoch()
        with self._not_counted():
            return self._finished_epoch(loss)

    def _finished_epoch(self, loss: float) -> Line:
        held_out = self.evaluate()
        self.unreadable = dict.fromkeys(self.processes.gathered(list(self.unreadable)))
        self._count_unreadable([])
        line = {
            "epoch": self.epoch,
            "update": self.updates,
            "size": self.recipe.size_at(self.epoch - 1),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "loss": loss,
            **held_out,
            "unreadable": len(self.unreadable),
        }
        self._sums[1] = 0
        self.metrics.add(line, write=self.processes.main)
        if self.processes.main and can_draw():
            draw(self.metrics.lines, self.output / "curves.png", f"top-1 {line['top1']:.2f} %")
        # a tracker's "loss" is that of ten updates, and it may have one value for an update
        self.processes.track({"epoch_loss" if name == "loss" else name: line[name] for name in line}, self.updates)
        self.save()
        return line

    def evaluate(self) -> Line:
        """What the averaged network makes of the held-out pictures: "top1", "top5" in %, "held_out_loss"."""
        return self.judge(self.processes.whole(self.average.tensors), self._count_unreadable)

    def _due(self) -> bool:
        return self.processes.any(time.perf_counter() - self._saved > 60 * self.save_every)

    def _stop_if_told(self, signals: StopSignals) -> None:
        """All processes stop after the same update: they ask each other, those on a device not every time."""
        if self.processes.number > 1 and self.updates % LINE_EVERY and self.device.type != "cpu":
            return
        told = self.processes.most(int(signals.received or 0))
        if told and self.updates < self.total:
            if self.updates % self.steps:
                self._loss_of_epoch()  # is looked at
                self.save()
            raise Stopped(told, self.updates)
