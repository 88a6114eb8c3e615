"""A vision language model that learns to see: FastVLM (arXiv:2412.13303) in miniature, on two processor cores.

    python examples/tiny_fastvlm.py --data cifar10 --out runs/tiny_fastvlm
    python examples/tiny_fastvlm.py --out runs/tiny_fastvlm --caption weights/cat.jpg

DATA holds train/CLASS/* and test/CLASS/* (or val/), as for `fastvit train`. The eye is fastvit_t8.cifar10, fused: at
64 x 64 pixels it gives 4 tokens of 768 channels. A projector of two layers with a GELU in between brings them into a
Qwen2 of 0.6 million parameters, random at first, with one token for each word of a small grammar. It learns in three
stages; a published FastVLM can do without the first, since its language model has read before.

words      The language model alone, without images. Where an image's tokens will be stands, at one random place, the
           class's word, and the caption is to be written: so it learns the grammar, and to look there.
projector  The projector alone, with encoder and language model frozen: it learns to say an image in words.
all        Everything, the fused encoder too, at a fiftieth of the projector's learning rate, as in the paper.

Correct is a caption that is, letter for letter and with its end, one of the four sentences that the grammar has for the
image's class, such as "a photo of a small frog.": another size or class, or any other word, is wrong. Captions are
written greedily, of validation images, spread evenly over the classes, which no training has seen. Beside that stands
what the encoder's own classifier names correctly of the same images, before any of this.

Needs pip install "fastvit[train,vlm]". OUT receives last.pt every --every steps, from which the same command goes on,
to the very weights of a run that was never stopped; at the end results.json, samples.png, losses.png; and model/, for
`fastvit.fastvlm.load`, or transformers' from_pretrained:

    fastvit.fastvlm.register()
    model = transformers.FastVlmForConditionalGeneration.from_pretrained("runs/tiny_fastvlm/model")
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from console import Progress, check_least, status_of
from tiny_model import describe
from tiny_results import write
from tiny_run import STAGES, Run

from fastvit.images.io import read_image
from fastvit.utils.extras import require

QUICK = {"steps": (150, 40, 20), "batch_size": 32, "test_images": 100}


def train(options: argparse.Namespace) -> None:
    require("train,vlm", "transformers", "matplotlib", what="this example")
    run, progress = Run(options), Progress()
    if steps := run.resume():
        progress.console.print(f"resumed after step {steps} of {sum(options.steps)}")
    with progress.bar:
        run.train(progress)
    found = write(run)
    if options.json:
        print(json.dumps(found))
        return
    names = ("correct", "correct_after_projector", "correct_by_classifier", "sentences")
    for name, correct in [*found["correct_of_class"].items(), *((name, found[name]) for name in names)]:
        print(f"{name.replace('_', ' '):<24}{'-' if correct is None else f'{correct:.1f} %':>8}")
    print(f"{options.out / 'model'}: {sum(run.seconds.values()):.0f} s of training")


def caption(options: argparse.Namespace) -> None:
    require("vlm", "transformers", what="this example")
    from transformers import AutoTokenizer, logging

    from fastvit import fastvlm

    folder = options.out / "model"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; train first, with --data and the same --out")
    logging.disable_progress_bar()
    model = fastvlm.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    preprocess = model.model.vision_tower.encoder.preprocess
    for path in options.caption:
        (text,) = describe(model, tokenizer, preprocess(read_image(path))[None])
        print(json.dumps({"image": str(path), "caption": text}) if options.json else f"{path}: {text}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="with train/CLASS/* and test/CLASS/*")
    add("--out", type=Path, default=Path("runs/tiny_fastvlm"), help="receives all that is written (%(default)s)")
    add("--caption", type=Path, nargs="+", metavar="IMAGE", help="describe these images with the model in --out")
    described = "steps in each stage (%(default)s)"
    add("--steps", type=int, nargs=3, metavar=tuple(STAGES), default=(300, 300, 500), help=described)
    add("--batch-size", type=int, default=128, help="sentences or images a step (%(default)s)")
    add("--images", type=int, default=0, help="training images, spread evenly over the classes (0: all)")
    add("--test-images", type=int, default=1000, help="validation images, likewise (%(default)s; 0: all)")
    add("--seed", type=int, default=0, help="of every random draw (%(default)s)")
    add("--every", type=int, default=25, help="steps between two checkpoints (%(default)s)")
    add("--threads", type=int, default=0, help="of torch (0: as many as there are cores)")
    add("--workers", type=int, default=1, help="processes that read images, beside the main one (%(default)s)")
    add("--quick", action="store_true", help="a miniature, to see it run: fewer steps, images and tests")
    add("--json", action="store_true", help="print the results, or a line for each image, as JSON")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.caption is None):
        parser.error("give either --data FOLDER to train, or --caption IMAGE to describe images")
    check_least(parser, options, batch_size=1, every=1, images=0, test_images=0, seed=0, threads=0, workers=0)
    if min(options.steps) < 1:
        parser.error(f"--steps is {' '.join(map(str, options.steps))}, expected at least 1 for each stage")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.caption:
        return status_of(lambda: caption(options))
    return status_of(lambda: train(options), options.out / "last.pt")


if __name__ == "__main__":
    sys.exit(main())
