"""The engine of `fastvit train`: the state of a run, one epoch after the other.

Every random draw of an epoch follows from (seed, epoch, workers), so a run that was killed and started again from its
last complete epoch ends with the same weights as one that was never interrupted (on a CPU bit for bit).
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import numpy
import timm.optim
import timm.utils
import torch
from torch import Tensor, nn

from .atomic import check_writable, replacing
from .checkpoint import save
from .create import create_model
from .data import Batches, DataError, Pictures, batches, check_same_classes, held_out_folder
from .evaluation import choose_device, predictions
from .model import FastViT
from .preprocess import Preprocess
from .recipe import Recipe, RecipeError
from .reparam import reparameterize


class Run:
    """A recipe at work on DATA/train and DATA/val (or test): model, moving average, optimiser, history."""

    def __init__(self, recipe: Recipe, data: Path, output: Path, *, device: str = "", workers: int = 2) -> None:
        self.recipe, self.output, self.workers, self.device = recipe, output, workers, choose_device(device)
        self.last = output / "last.pt"
        torch.manual_seed(recipe.seed)
        preprocess = Preprocess(size=(recipe.size, recipe.size), crop=recipe.crop)
        self.pictures = Pictures(data / "train", recipe.transform(0))
        self.held_out = Pictures(held_out_folder(data), preprocess)
        check_same_classes(self.pictures, self.held_out)
        self.steps = len(self.pictures) // recipe.batch_size
        if not self.steps:
            raise DataError(f"{data}/train: {len(self.pictures)} pictures are less than one batch; lower --batch-size")
        classes = self.pictures.classes
        model = create_model(
            recipe.model,
            checkpoint_path="" if self.last.exists() else recipe.weights,  # to be resumed, it needs no other start
            num_classes=len(classes),
            drop_path_rate=recipe.drop_path,
        )
        assert isinstance(model, FastViT)  # which it is without features_only
        model.pretrained_cfg |= preprocess.to_cfg()
        model.pretrained_cfg |= {"num_classes": len(classes), "label_names": list(classes), "license": None}
        self.model = model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = timm.utils.ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
        self.optimizer = timm.optim.create_optimizer_v2(
            self.model, recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.schedule = recipe.schedule(self.optimizer, self.steps)
        self.mixer, self.loss = recipe.mixer(len(classes)), recipe.loss()
        self.history: list[dict[str, float]] = []
        if recipe.compile:
            self.model.compile()
        if output.exists() and not output.is_dir():
            raise RecipeError(f"{output}: is a file, expected a folder; choose another --output")
        output.mkdir(parents=True, exist_ok=True)
        check_writable(self.last)

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return len(self.history)

    def train_epoch(self, report: Callable[[int, float], None]) -> dict[str, float]:
        """One pass over the pictures, one evaluation, everything written to disk; `report` gets (images, loss)."""
        started = time.perf_counter()
        seed = _seed_everything(self.recipe.seed, self.epoch)
        self.pictures.transform = self.recipe.transform(self.epoch)
        self.model.train()
        total = 0.0
        loader = self._batches(self.pictures, shuffle_seed=seed)
        for step, (images, labels) in enumerate(loader, self.epoch * self.steps):
            loss = self._step(step, images, labels)
            total += loss
            report(len(images), loss)
        top1 = self.evaluate()
        line = {
            "epoch": self.epoch + 1,
            "size": self.recipe.size_at(self.epoch),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "loss": total / self.steps,
            "top1": top1,
            "seconds": round(time.perf_counter() - started, 1),
        }
        self.history.append(line)
        self.save()
        return line

    def _step(self, step: int, images: Tensor, labels: Tensor) -> float:
        """Images (B, 3, H, W) and labels (B) -> the loss, after one update of the weights and of their average."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        targets = labels.to(self.device, non_blocking=True)
        if self.mixer:
            images, targets = self.mixer(images, targets)
        self.schedule.step_update(step)  # a function of the step alone, so there is no state of it to keep
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.model(images)
        loss = self.loss(logits.float(), targets)
        loss.backward()
        if self.recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.model, step + 1)
        value: float = loss.item()
        if not math.isfinite(value):
            raise RecipeError(f"the loss is {value} at update {step}; try a lower --learning-rate or --clip-gradient 1")
        return value

    def evaluate(self) -> float:
        """The percentage of the held-out pictures that the averaged model gets right."""
        right = 0
        folded = reparameterize(self.average.module)  # the same answers, sooner
        for logits, labels in predictions(folded, self._batches(self.held_out), self.device):
            right += int((logits.argmax(1) == labels).sum())
        return 100 * right / len(self.held_out)

    def _batches(self, pictures: Pictures, shuffle_seed: int | None = None) -> Batches:
        pin = self.device.type == "cuda"
        return batches(pictures, self.recipe.batch_size, workers=self.workers, pin=pin, shuffle_seed=shuffle_seed)

    def save(self) -> None:
        """Each file is whole at every moment: a run that is killed loses its incomplete epoch and nothing else.

        `last.pt` comes last: where it says that an epoch is complete, the other two have it too.
        """
        state = {
            "recipe": asdict(self.recipe),
            "classes": self.pictures.classes,
            "pictures": len(self.pictures),
            "history": self.history,
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.output / "metrics.jsonl") as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.history))
        save(self.average.module, self.output / "model.safetensors")
        with replacing(self.last) as path:
            torch.save(state, path)

    def resume(self) -> None:
        """Continue after the last complete epoch of the same recipe on the same pictures, if there is one."""
        if not self.last.exists():
            return
        try:
            state = torch.load(self.last, map_location=self.device, weights_only=True)
            then = {**asdict(Recipe(**state["recipe"])), "pictures": state["pictures"], "classes": state["classes"]}
        except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
            raise RecipeError(f"{self.last}: damaged, or of something else; remove it to start anew") from None
        now = {**asdict(self.recipe), "pictures": len(self.pictures), "classes": self.pictures.classes}
        if differing := [name for name in now if now[name] != then.get(name)]:
            changes = ", ".join(f"{name} was {then.get(name)!r}, is {now[name]!r}" for name in differing)
            raise RecipeError(f"{self.last} is of another run: {changes}; give the same options or another --output")
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]


def _seed_everything(seed: int, epoch: int) -> int:
    """(seed, epoch) -> one number, from which torch, random and numpy (timm's mixup) start."""
    mixed = int(numpy.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    torch.manual_seed(mixed)
    random.seed(mixed)
    numpy.random.seed(mixed)
    return mixed
