"""A run: its state, and one step after the other.

Every random draw (images, their augmentation, mixup, drop path) follows from the number of complete steps and the
seed. So a run that goes on from a checkpoint ends with the weights of one never interrupted, on a CPU bit for bit.
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
from ..data import Batch, DataError, Selected, Source, check_labels, reading, seed_everything
from ..evaluation.metrics import Metrics
from ..evaluation.validation import evaluate
from ..models.fastvit import FastViT
from ..models.reparam import reparameterize
from ..utils.atomic import remove_leftovers
from ..weights.savable import check_savable
from . import best
from .augmenting import augmentation
from .build import build_loader, build_state
from .checkpoints import Checkpoints
from .distributed import Processes, check_batch_size, check_statistics
from .fitting import fitted
from .initial_weights import describe, initial_model
from .log import LINE_EVERY, Line, Meter, MetricsLog, epoch_line
from .objective import Objective, make_teacher
from .options import RecipeError
from .recipe import DEFAULTS, Recipe, RunOptions
from .recipe_file import check_output
from .schedule import learning_rates
from .signals import Stopped, stop_signals
from .trained import Callback, TrainedRun


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
        self.source, self.validation, self.options, self.output = source, validation, options, Path(output)
        self.metrics: Metrics | None = None
        check_labels(source)
        check_output(self.output)
        augmentation(recipe, epoch=0)  # may raise
        self.processes = Processes(options.device, recipe.precision, options.tracker, self.output)
        self.recipe = fitted(recipe, len(source), self.processes.world_size, model is not None)
        check_batch_size(self.recipe, self.processes.world_size)
        self.steps_per_epoch = len(source) // self.recipe.batch_size
        self.total_steps = self.recipe.epochs * self.steps_per_epoch
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
        given = (model, True) if model is not None else initial_model(recipe, self.source, checkpoint)
        check_statistics(recipe, self.processes.world_size, given[0].feature_info[-1]["reduction"])
        self.preprocess = describe(given[0], recipe, classes)
        check_savable(given[0])  # also its classes' names, before anything is trained
        self.state = build_state(recipe, given[0], self.processes, self.steps_per_epoch, new_head=given[1])
        teacher = make_teacher(recipe, self.preprocess, len(classes)) if step < self.total_steps else None
        self.objective = Objective(recipe, len(classes), self.processes, teacher)
        if checkpoint:
            self.state.load_state_dict(checkpoint)
        self.meter = Meter(self.state, recipe.batch_size, self.steps_per_epoch)
        self.log = MetricsLog(self.output / "metrics.jsonl", self.processes.is_main_process, self.processes.track)
        if self.processes.is_main_process:
            for name in ("model.safetensors", "metrics.jsonl", "curves.png", "recipe.yaml", *best.FILES):
                remove_leftovers(self.output / name)
            self.log.rewind(step)
        self.log.lines = self.processes.broadcast(self.log.lines)
        if self.state.best.get("step") == step and not self.processes.broadcast(best.is_written(self.output, step)):
            self._save_best(self.validate())  # a kill came between the checkpoint and these

    def _about(self) -> dict[str, Any]:
        """What a checkpoint has to be of, for this run to go on from it, and the options that may be others."""
        options = asdict(self.options) | {"device": self.processes.device.type, "keep": None}  # which is of files alone
        about = {"recipe": asdict(self.recipe), "images": len(self.source), "classes": self.source.classes}
        return about | {"options": options, "digests": [self.source.digest, self.validation.digest]}

    @property
    def history(self) -> list[Line]:
        """A line for each complete epoch."""
        return self.log.epochs

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self.state.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or no epoch of the last `patience` ones was better than those before."""
        waits, found = self.recipe.patience, self.state.best
        patient = not (waits and found) or self.state.step % self.steps_per_epoch or self.epoch - found["epoch"] < waits
        return not patient or self.state.step >= self.total_steps

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
                while not self.finished:
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
        unreadable = list(self.state.unreadable)
        return TrainedRun(self.output, self.history, unreadable, self.metrics, self.state.best, self.recipe.epochs)

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
        line = epoch_line(self.state, self.epoch, self.recipe.size_at(self.epoch - 1), loss, metrics)
        self.state.loss_sums[1] = 0
        self.log.add(line)
        if better := best.is_better(line, self.state.best):
            self.state.best = line
        if self.processes.is_main_process:
            rates = learning_rates(self.recipe, self.steps_per_epoch, self.state.step)
            self.log.draw(self.output / "curves.png", rates)
        self.save()
        if better:
            self._save_best(metrics)
        return line

    def _save_best(self, metrics: Metrics) -> None:
        """The EMA of the weights and a report, after the checkpoint, from which they are made if a kill comes."""
        tensors = self.processes.whole(self.state.ema.tensors)
        if self.processes.is_main_process:
            best.write(self.state.ema.model_of(tensors), metrics, self.state.best, self.output)
        self.processes.accelerator.wait_for_everyone()

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
