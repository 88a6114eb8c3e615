"""The training of a tiny FastVLM, in stages, from any point of it on."""

import argparse
import math
import pickle
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import torch
from console import make_folder, writing
from tiny_captions import WAYS, Sentences, captions, make_tokenizer
from tiny_model import describe, make_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastvit.data import LabelledImages, Selected, check_same_classes, training_source, validation_source
from fastvit.training.build import augmentation
from fastvit.training.recipe import Recipe
from fastvit.utils.atomic import replacing

STAGES = {  # the highest learning rate of each part that is trained
    "words": {"language_model": 2e-3},
    "projector": {"projector": 2e-3},
    "all": {"language_model": 4e-5, "projector": 4e-5, "encoder": 4e-5},
}
AUGMENTATION = Recipe(  # that of the encoder's second run (weights/README.md)
    size=64, smallest_area=0.4, auto_augment="rand-m9-n1-mstd0.5-mmax9-inc1", random_erasing=0.25, mixup=0.0, cutmix=0.0
)
Report = Callable[..., None]  # title, done, total, loss


def mixed(*numbers: int) -> int:
    """Many numbers -> one, the seed of what depends on all of them."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])


class Views(Dataset[tuple[Tensor, int, Tensor]]):
    """Position in a stage -> (augmented image, class, way to say it), all drawn from the seed and the position.

    So it is nothing to a run how often it was stopped, or which process reads its images.
    """

    def __init__(self, images: LabelledImages, seed: Sequence[int], length: int) -> None:
        self.images, self.seed = images, seed
        generator = torch.Generator().manual_seed(mixed(*seed))
        passes = range(-(-length // len(images)))
        self.order = torch.cat([torch.randperm(len(images), generator=generator) for _ in passes])[:length]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Tensor, int, Tensor]:
        seed = mixed(*self.seed, position)
        torch.manual_seed(seed), random.seed(seed), numpy.random.seed(seed)  # the augmentation draws from all three
        return *self.images[int(self.order[position])], torch.randint(len(WAYS), ())


class Run:
    """The model, and how far it has come in the stages.

    Args:
        options: those of the command line.

    Raises:
        ValueError: data that is not there, or an `out` that cannot be written to.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.last = options, options.out / "last.pt"
        train, test = training_source(options.data), validation_source(options.data)
        check_same_classes(train, test)
        self.images = LabelledImages(Selected.evenly(train, options.images), augmentation(AUGMENTATION, epoch=0))
        test = Selected.evenly(test, options.test_images)
        self.validation = LabelledImages(test, lambda image: self.encoder.preprocess(image))
        classes = train.classes
        self.tokenizer = make_tokenizer(classes)
        self.model = make_model(self.tokenizer, options.seed)
        vlm = self.model.model
        self.encoder = vlm.vision_tower.encoder
        self.parts = {"language_model": vlm.language_model, "projector": vlm.multi_modal_projector}
        self.parts["encoder"] = self.encoder
        image_tokens = self.encoder.num_tokens(*self.encoder.preprocess.size)
        self.sentences = Sentences(self.tokenizer, classes, image_tokens)
        self.model.generation_config.max_new_tokens = self.sentences.longest
        self.steps = dict(zip(STAGES, options.steps, strict=True))
        self.settings = {name: getattr(options, name) for name in ("batch_size", "seed")}
        self.settings |= {"classes": classes, "images": len(self.images), "test_images": len(self.validation)}
        self.settings |= {"stages": STAGES, "steps": self.steps}
        self.losses: dict[str, list[float]] = {stage: [] for stage in STAGES}  # of each step
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.captions: dict[str, list[str]] = {}  # of the validation images, after a stage
        self.optimizer: torch.optim.Optimizer | None = None
        self._kept: Any = None  # the optimizer's state in the stage in which a run was stopped
        make_folder(options.out)

    def train(self, report: Report) -> None:
        """All that is not done yet, with a checkpoint now and then; `report` hears of every step."""
        for stage in STAGES:
            if len(self.losses[stage]) < self.steps[stage]:
                self._train(stage, report)
            if stage != "words" and stage not in self.captions:
                self.captions[stage] = self._describe_validation(report)
                self.save()

    def _train(self, stage: str, report: Report) -> None:
        losses, size = self.losses[stage], self.options.batch_size
        self.optimizer = self._start(stage)
        started = time.perf_counter() - self.seconds[stage]
        for inputs in self._batches(stage, len(losses)):
            losses.append(self._step(inputs, len(losses) / self.steps[stage]))
            self.seconds[stage] = time.perf_counter() - started
            report(stage, len(losses) * size, self.steps[stage] * size, losses[-1])
            if len(losses) % self.options.every == 0 or len(losses) == self.steps[stage]:
                self.save()

    def _start(self, stage: str) -> torch.optim.Optimizer:
        """Freeze all parts but the stage's -> their optimizer, as it was if the run was stopped in this stage."""
        self.model.requires_grad_(False)
        parts = {name: self.parts[name].requires_grad_(True) for name in STAGES[stage]}
        groups = [{"params": [*part.parameters()], "highest": STAGES[stage][name]} for name, part in parts.items()]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
        if self._kept is not None:
            optimizer.load_state_dict(self._kept)
            self._kept = None
        return optimizer

    def _batches(self, stage: str, start: int) -> Iterator[dict[str, Tensor]]:
        """What the model learns from, step after step, from the one numbered `start` on."""
        size, seed = self.options.batch_size, (self.options.seed, list(STAGES).index(stage))
        if stage == "words":
            highs = (*self.sentences.ids.shape[:2], self.sentences.image_tokens)  # classes, ways, places
            for step in range(start, self.steps[stage]):
                generator = torch.Generator().manual_seed(mixed(*seed, step))
                yield self.sentences.inputs(*(torch.randint(high, (size,), generator=generator) for high in highs))
            return
        views = Views(self.images, seed, self.steps[stage] * size)
        rest = range(start * size, len(views))
        for images, classes, ways in DataLoader(views, size, sampler=rest, num_workers=self.options.workers):
            pixels = images.contiguous(memory_format=torch.channels_last)
            yield {**self.sentences.inputs(classes, ways), "pixel_values": pixels}

    def _step(self, inputs: dict[str, Tensor], done: float) -> float:
        """One, with that part of the stage done -> the loss, in nats a token."""
        assert self.optimizer
        for group in self.optimizer.param_groups:  # a short rise, then half a cosine down
            group["lr"] = group["highest"] * min(1, 0.1 + done / 0.05) * (1 + math.cos(math.pi * done)) / 2
        loss = self.model(**inputs, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _describe_validation(self, report: Report) -> list[str]:
        texts: list[str] = []
        for images, _, _ in self.validation.batches(100):
            texts += describe(self.model, self.tokenizer, images)
            report("captions of validation images", len(texts), len(self.validation))
        return texts

    def correct(self, stage: str) -> list[bool]:
        """Of each validation image whether its caption, as written after the stage, was correct."""
        validation = self.validation.source
        names = [validation.classes[label] for label in validation.labels]
        return [text in captions(name) for text, name in zip(self.captions[stage], names, strict=True)]

    def save(self) -> None:
        names = ("settings", "losses", "seconds", "captions")
        optimizer = self.optimizer.state_dict() if self.optimizer else None
        state = {name: getattr(self, name) for name in names} | {"optimizer": optimizer}
        with writing(self.last), replacing(self.last) as path:
            torch.save(state | {"model": self.model.state_dict()}, path)

    def resume(self) -> int:
        """Go on from `last.pt`, if there is one; the number of steps made before."""
        if not self.last.exists():
            return 0
        try:
            state = torch.load(self.last, weights_only=True)
            then = state["settings"]
            changed = [name for name, value in self.settings.items() if then.get(name) != value]
            if not changed:
                self.model.load_state_dict(state["model"])
                self.losses, self.seconds, self.captions = (state[name] for name in ("losses", "seconds", "captions"))
                optimizer = state["optimizer"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{self.last}: damaged, or of something else; remove it to start anew") from None
        if changed:
            raise ValueError(f"{self.last}: a run with other {', '.join(changed)}; give the same, or another --out")
        if any(0 < len(self.losses[stage]) < self.steps[stage] for stage in STAGES):
            self._kept = optimizer  # of a stage that is not done
        return sum(map(len, self.losses.values()))
