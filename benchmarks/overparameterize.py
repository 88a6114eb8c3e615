"""What overparameterizing is worth: the model that ships with the package is fused, and trained on in three forms.

    python benchmarks/overparameterize.py cifar10 --epochs 4

original      the shipped weights, with the branches they were trained with
re-expanded   overparameterize(reparameterize(original)), calibrated on training images
fused         reparameterize(original), all its parameters trained: what is done where only fused weights are published

The arms of one seed see the same images in the same order, with the same augmentation, optimiser and schedule: the
engine is that of `fastvit train`, and what counts is top-1 on the test images after the last epoch, of the EMA's
weights. Each finished run is kept in the results file and an unfinished one in RESULTS.runs, so the same command goes
on after an interruption. At the end the table in benchmarks/README.md is rewritten.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from readme import write_section

import fastvit
from fastvit import FastViT, overparameterize
from fastvit.data import Source
from fastvit.training import Callback, Recipe, RunOptions, Trainer, open_sources
from fastvit.training.initial_weights import augmented_images, initial_model
from fastvit.utils.atomic import replacing
from fastvit.utils.digest import file_digest

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "weights" / "fastvit_t8.cifar10.safetensors"
ARMS = ("original", "re-expanded", "fused")
CALIBRATION = 256  # training images that the new norms take their statistics from
EVERY_SECONDS = 30  # between two lines of progress


def starting_model(form: str, recipe: Recipe, source: Source) -> FastViT:
    """The shipped weights in one of the forms."""
    original = initial_model(recipe, source)
    if form == "original":
        return original
    fused = fastvit.reparameterize(original.eval())
    return fused if form == "fused" else overparameterize(fused, augmented_images(recipe, source, CALIBRATION))


def recipe(options: argparse.Namespace, seed: int) -> Recipe:
    """Crops and RandAugment are those of the shipped weights (weights/README.md)."""
    return Recipe(
        model="fastvit_t8",
        weights=str(WEIGHTS),
        size=options.size,
        crop=1.0,
        epochs=options.epochs,
        max_images=options.images,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_epochs=options.epochs / 10,
        clip_gradient=1.0,
        smallest_area=0.4,
        auto_augment="rand-m9-n1-mstd0.5-mmax9-inc1",
        mixup=0.0,
        cutmix=0.0,
        ema_decay=0.998,
        seed=seed,
    )


class Results:
    """The finished runs in a file, whole at every moment."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.runs = path, {}
        self.settings = settings
        if path.exists():
            kept = json.loads(path.read_text())
            changed = [name for name, value in settings.items() if kept["settings"].get(name) != value]
            if changed:
                raise ValueError(f"{path} is of another {', '.join(changed)}: give the same or another --output")
            self.runs = kept["runs"]

    def add(self, name: str, history: list[dict[str, float]]) -> None:
        self.runs[name] = history
        with replacing(self.path) as path:
            path.write_text(json.dumps({"settings": self.settings, "runs": self.runs}, indent=1) + "\n")

    def top1(self, arm: str, seed: int) -> float:
        return self.runs[f"{arm}, seed {seed}"][-1]["top1"]


class Progress(Callback):
    """Progress on standard error."""

    def __init__(self, title: str, batch_size: int) -> None:
        self.title, self.batch_size, self.images = title, batch_size, 0
        self.started_at = self.shown_at = time.perf_counter()

    def step_done(self, trainer: Trainer, loss: float) -> None:
        self.images, now = self.images + self.batch_size, time.perf_counter()
        if now - self.shown_at >= EVERY_SECONDS:
            self.shown_at = now
            speed = self.images / (now - self.started_at)
            step = f"step {trainer.state.step}/{trainer.total_steps}"
            print(f"{self.title}: {step}, {speed:.0f} images/s", file=sys.stderr, flush=True)

    def epoch_done(self, trainer: Trainer, line: dict[str, float]) -> None:
        result = f"loss {line['train_loss']:.4f}, top-1 {line['top1']:.2f} %"
        print(f"{self.title}, epoch {line['epoch']}: {result}", file=sys.stderr, flush=True)


def table(results: Results, seeds: list[int]) -> str:
    import timm

    about = results.settings
    head = ["trained on", "mean", *(f"seed {seed}" for seed in seeds), "minus original"]
    lines = [head, ["---"] * len(head)]
    for arm in ARMS:
        top1 = [results.top1(arm, seed) for seed in seeds]
        apart = [mine - results.top1("original", seed) for mine, seed in zip(top1, seeds, strict=True)]
        difference = f"{statistics.mean(apart):+.2f} ({min(apart):+.2f} to {max(apart):+.2f})"
        numbers = [f"{value:.2f}" for value in (statistics.mean(top1), *top1)]
        lines.append([arm, *numbers, "" if arm == "original" else difference])
    trained = (
        f"Top-1, %: {about['epochs']} epochs on {about['images']:,} images of {about['size']} pixels, batches of "
        f"{about['batch_size']}, learning rate {about['learning_rate']:g}."
    )
    versions = f"torch {torch.__version__}, timm {timm.__version__}; {datetime.date.today()}."
    return "\n".join([f"{trained} {versions}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's train/CLASS/* and test/CLASS/*")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training images (default 4)")
    parser.add_argument("--images", type=int, default=0, help="training images, evenly over the classes (default: all)")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images (default 64)")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step (default 128)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="peak learning rate of AdamW (default 5e-4)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the random draws (default 0 1 2)"
    )
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: as many as there are cores)")
    parser.add_argument("--workers", type=int, default=1, help="processes that read images (default 1)")
    parser.add_argument("--device", default="", help="cpu, cuda, mps ... (default: the fastest there is)")
    parser.add_argument("--output", type=Path, default=Path("overparameterize.json"), help="the results file")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", help="the file that holds the table")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        compare(options)
    except ValueError as error:  # about an option or the data
        sys.exit(f"error: {error}")


def compare(options: argparse.Namespace) -> None:
    recipes = {seed: recipe(options, seed) for seed in options.seeds}
    settings = {name: value for name, value in asdict(recipes[options.seeds[0]]).items() if name != "seed"}
    source, validation = open_sources(recipes[options.seeds[0]], options.data)
    settings |= {"weights": file_digest(WEIGHTS), "images": len(source)}
    results = Results(options.output, settings)
    for seed in options.seeds:  # all arms of a seed before the next one: stopped early, whole comparisons are there
        for arm in ARMS:
            name = f"{arm}, seed {seed}"
            if name in results.runs:
                print(f"{name}: done, top-1 {results.top1(arm, seed):.2f} %", file=sys.stderr)
                continue
            folder = options.output.with_suffix(".runs") / f"{arm}-{seed}"
            model = starting_model(arm, recipes[seed], source)
            run = RunOptions(device=options.device, workers=options.workers)
            trainer = Trainer(recipes[seed], source, validation, folder, run, model)
            trainer.train(Progress(name, options.batch_size))
            results.add(name, trainer.history)
    text = table(results, options.seeds)
    write_section(options.readme, Path(__file__).name, text)
    print(text)


if __name__ == "__main__":
    main()
