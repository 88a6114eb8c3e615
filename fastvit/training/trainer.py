"""A run: its state, and one step after the other.

The place in a run is the number of complete steps, and every random draw follows from it and the seed: the order of
the images and their augmentation (fastvit.data), mixup, drop path. So a run that was killed and started again
from a checkpoint ends with the same weights as one that was never interrupted, on a CPU bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..checkpoint import save
from ..data import Batch, DataError, Selected, Source, reading, seed_everything
from ..evaluation.metrics import Metrics
from ..evaluation.validation import evaluate
from ..models.fastvit import FastViT
from ..models.reparam import reparameterize
from ..utils.atomic import remove_leftovers
from .build import augmentation, build_loader, build_state
from .checkpoints import Checkpoints, check_output
from .distributed import Processes, check_batch_size
from .initial_weights import describe, initial_model
from .log import LINE_EVERY, Line, Meter, MetricsLog, TrainedRun
from .objective import Objective, make_teacher
from .recipe import DEFAULTS, Recipe, RecipeError, RunOptions
from .signals import Stopped, stop_signals


class Callback:
    """What is called while a run trains; each method may be overridden."""

    def started(self, trainer: Trainer) -> None:
        """All is ready, and the trainer's state is new or the newest checkpoint's."""

    def step_done(self, trainer: Trainer, loss: float) -> None:
        """After each step; on a GPU the loss is that of the last line of the log, and NaN before the first."""

    def epoch_done(self, trainer: Trainer, line: Line) -> None:
        """After each epoch, with its line of the log."""


class Trainer:
    """A recipe at work, in this process and, under torchrun or accelerate launch, in others.

    Args:
        recipe: all that decides the weights.
        source: the training images, as `open_sources` gives them.
        validation: the validation images, of the same classes.
        output: the folder that receives everything; a run goes on from the newest checkpoint in it.
        options: what does not decide the weights.
        model: what to start from, a model for the classes of the source; by default what the recipe says.

    Attributes:
        state: what changes from step to step; `log` has the lines of metrics.jsonl, `metrics` the last validation.

    Raises:
        RecipeError: an option that cannot work, or a checkpoint of another recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        validation: Source,
        output: str | Path,
        options: RunOptions = DEFAULTS,
        model: FastViT | None = None,
    ) -> None:
        self.recipe, self.source, self.validation, self.options = recipe, source, validation, options
        self.output = Path(output)
        self.steps_per_epoch = len(source) // recipe.batch_size
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self.metrics: Metrics | None = None
        augmentation(recipe, epoch=0)  # may raise
        check_output(self.output)
        self.processes = Processes(options.device, recipe.precision, options.tracker, self.output)
        check_batch_size(recipe, self.processes.world_size)
        self.output.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(self.output / "checkpoints", options.keep)
        self._build(model)

    def _build(self, model: FastViT | None) -> None:
        """The state, as the newest checkpoint has it if there is one."""
        recipe, classes = self.recipe, self.source.classes
        checkpoint = self.checkpoints.of_run(self._about())
        step = checkpoint["step"] if checkpoint else 0
        if self.processes.any(step != self.processes.broadcast(step)):
            raise RecipeError(f"{self.output}: is not the same for all processes; expected a folder that all share")
        if model is None:
            model = initial_model(recipe, self.source, checkpoint)
        self.preprocess = describe(model, recipe, classes)
        self.state = build_state(recipe, model, self.processes, self.steps_per_epoch)
        teacher = make_teacher(recipe, self.preprocess, len(classes)) if step < self.total_steps else None
        self.objective = Objective(recipe, len(classes), self.processes, teacher)
        if checkpoint:
            self.state.load_state_dict(checkpoint)
        self.meter = Meter(self.state, recipe.batch_size, self.steps_per_epoch)
        self.log = MetricsLog(self.output / "metrics.jsonl", self.processes.is_main_process, self.processes.track)
        if self.processes.is_main_process:
            for name in ("model.safetensors", "metrics.jsonl", "curves.png", "recipe.yaml"):
                remove_leftovers(self.output / name)
            self.log.rewind(step)
        self.log.lines = self.processes.broadcast(self.log.lines)

    def _about(self) -> dict[str, Any]:
        """What a checkpoint has to be of, for this run to go on from it."""
        return {"recipe": asdict(self.recipe), "images": len(self.source), "classes": self.source.classes}

    @property
    def history(self) -> list[Line]:
        """A line for each complete epoch."""
        return self.log.epochs

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self.state.step // self.steps_per_epoch

    def train(self, callback: Callback | None = None) -> TrainedRun:
        """All steps that are not done yet; then the processes take leave of each other.

        Raises:
            Stopped: by a signal; the state is saved.
            RecipeError: the loss is NaN or infinite.
            DataError: more images than `max_unreadable` cannot be read.
            OSError: the disk is full.
        """
        callback = callback or Callback()
        callback.started(self)
        self.meter.restart()
        self._saved = time.perf_counter()
        self.processes.accelerator.init_trackers("fastvit", config=asdict(self.recipe))
        try:
            with stop_signals() as signals, reading(self.loader()) as batches:
                while self.state.step < self.total_steps:
                    if line := self.meter.add(self.train_step(batches)):
                        self.log.add(line)
                    callback.step_done(self, self.meter.last_loss)
                    if self.state.step % self.steps_per_epoch == 0:
                        callback.epoch_done(self, self._end_epoch())
                    elif self.state.step % LINE_EVERY == 0 and self._due():
                        self.save()
                    self._stop_if_told(signals)
        finally:
            for tracker in self.processes.accelerator.trackers:
                tracker.finish()
        self.processes.close()
        return TrainedRun(self.output, self.history, list(self.state.unreadable), self.metrics)

    def loader(self) -> DataLoader[Batch]:
        """This process's share of the micro-batches, from the next step on to the last."""
        start, workers = self.state.step, self.options.workers
        return build_loader(self.recipe, self.source, self.preprocess, self.processes, start=start, workers=workers)

    def train_step(self, batches: Iterator[Batch]) -> Tensor:
        """Change the weights once, by a batch -> its loss, a scalar."""
        recipe, state, accelerator = self.recipe, self.state, self.processes.accelerator
        state.schedule.step_update(state.step)
        total = torch.zeros((), device=self.processes.device, dtype=torch.float32)
        for micro in range(recipe.gradient_accumulation):
            batch = next(batches)
            state.count_unreadable(batch.unreadable, recipe.max_unreadable)
            seed_everything(recipe.seed, state.step, micro, self.processes.rank)
            last = micro == recipe.gradient_accumulation - 1
            with nullcontext() if last else accelerator.no_sync(state.wrapped):
                loss = self.objective(state.wrapped, batch.images, batch.labels) / recipe.gradient_accumulation
                accelerator.backward(loss)
            total += loss.detach()
        if recipe.clip_gradient:
            accelerator.clip_grad_norm_(state.wrapped.parameters(), recipe.clip_gradient)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        state.ema.update(state.model, state.step)
        return total

    def validate(self) -> Metrics:
        """What the EMA of the weights makes of the validation images, each process of its share."""
        ema, processes = self.state.ema, self.processes
        fused = reparameterize(ema.model_of(processes.whole(ema.tensors)))  # the same result, sooner
        metrics = evaluate(
            fused.to(processes.device, memory_format=torch.channels_last),  # type: ignore[call-overload]
            Selected(self.validation, range(processes.rank, len(self.validation), processes.world_size)),
            scoring="all",
            batch_size=max(1, self.recipe.batch_size // processes.world_size),
            workers=self.options.workers,
            max_unreadable=None,
        )
        self.state.count_unreadable(metrics.unreadable, self.recipe.max_unreadable)
        self.metrics = metrics.reduced(processes.sum)
        if not self.metrics.images:
            raise DataError(f"{self.validation.where}: none of its images can be read")
        return self.metrics

    def save(self) -> None:
        """Write the EMA of the weights, and after them the state: each file is whole at every moment."""
        state = self._about() | self.state.state_dict()
        if self.processes.is_main_process:
            self.log.flush()
            save(self.state.ema.model_of(state["ema"]), self.output / "model.safetensors")
            self.checkpoints.save(self.state.step, state)
        self.processes.accelerator.wait_for_everyone()
        self._saved = time.perf_counter()
        self.meter.restart()

    def _end_epoch(self) -> Line:
        loss = self.meter.epoch_loss()
        metrics = self.validate()
        self.state.count_unreadable(self.processes.gather(list(self.state.unreadable)), self.recipe.max_unreadable)
        line = {
            "epoch": self.epoch,
            "step": self.state.step,
            "size": self.recipe.size_at(self.epoch - 1),
            "learning_rate": self.state.learning_rate,
            "train_loss": loss,
            "validation_loss": metrics.nll,
            "top1": metrics.top1,
            "top5": metrics.top5,
            "unreadable": len(self.state.unreadable),
        }
        self.state.loss_sums[1] = 0
        self.log.add(line)
        if self.processes.is_main_process:
            self.log.draw(self.output / "curves.png")
        self.save()
        return line

    def _due(self) -> bool:
        return self.processes.any(time.perf_counter() - self._saved > 60 * self.options.save_every)

    def _stop_if_told(self, signals: list[int]) -> None:
        """All processes stop after the same step: they ask each other, those on a GPU not every time."""
        if self.processes.world_size > 1 and self.state.step % LINE_EVERY and self.processes.device.type != "cpu":
            return
        if self.processes.any(bool(signals)) and self.state.step < self.total_steps:
            number = self.processes.gather(signals)[0]
            if self.state.step % self.steps_per_epoch:
                self.meter.epoch_loss()  # is looked at
                self.save()
            self.processes.close()
            raise Stopped(number, self.state.step, self.total_steps)
