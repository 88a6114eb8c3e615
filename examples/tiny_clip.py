"""A CLIP (arXiv:2103.00020) in miniature: a text encoder learns what a trained image encoder sees, on two CPU cores.

    python examples/tiny_clip.py --data cifar10 --output runs/tiny_clip

DATA holds train/CLASS/* and test/CLASS/* (or val/), as for `fastvit train`. This is LiT (arXiv:2111.07991): the image
encoder, fastvit_t8.cifar10, is locked, so its features of the training images are computed once and kept, in
OUTPUT/features. Its embedding is its 768 pooled features themselves: nothing is learned on the image's side, and its
projection is the identity. A text encoder of two layers, 128 channels wide, random at first, learns to give each
caption the direction of its images.

Captions are CLIP's prompts for CIFAR, "a blurry photo of a cat.", but for the four with "good" or "big", which are kept
to measure with. Half of them stand among a few random words, so that texts of any kind are understood that have a
class's word in them. A batch has many images of each class, for which another one's caption is no wrong one: all
captions of an image's class are correct, and share the target.

Measured is, on the test images, the accuracy of `clip.zero_shot(classes, prompts)` beside that of the encoder's own
classifier, with the prompts of training and with those never seen; and what texts find: for each class one with a
prompt never seen, and the --queries. Of the first images it finds, and of as many as the class has, the correct ones
are counted. A word that no caption has had, not even as a plural, means nothing to it.

Needs pip install "fastvit[train,embed,clip]". OUTPUT receives clip.safetensors, found.png and, last, results.json. A
run that is stopped goes on with the features that are kept, 5,000 images a file; training begins anew.

    clip = fastvit.clip.load("runs/tiny_clip/clip.safetensors")
    model = clip.zero_shot(["cat", "dog"], prompts="photo")
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from clip_captions import Captions
from clip_results import accuracy, accuracy_of_prompts, table
from clip_search import class_queries, draw_found, embed_images, search
from clip_training import LENGTH, class_features, make_clip, train
from console import Progress, check_least, make_folder, status_of

import fastvit
from fastvit.clip import CLIP
from fastvit.data import Selected, Source, check_same_classes, training_source, validation_source
from fastvit.utils.atomic import replacing
from fastvit.utils.extras import require

QUERIES = (
    "a cat asleep on the sofa",
    "look at the ship under those dark clouds",
    "somebody rides a horse across the field",
)
QUICK = {"steps": 60, "test_images": 1000}


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Write down how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - started, 1)


def trained(options: argparse.Namespace, progress: Progress) -> tuple[CLIP, dict[str, Any]]:
    """The CLIP as it is read from the file that it was saved in, and what results.json says of its training."""
    path, seconds, images = options.output / "clip.safetensors", dict[str, float](), training_source(options.data)
    captions, clip = Captions(images.classes, LENGTH), make_clip(options.seed)
    make_folder(options.output)
    with timed(seconds, "features"):
        features = class_features(options.output / "features", images, progress)
    with timed(seconds, "training"):
        losses = train(clip, captions, features, options, progress)
    fastvit.clip.save(clip, path)
    return fastvit.clip.load(path), {"losses": losses, "seconds": seconds}


def measured(clip: CLIP, images: Source, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """What results.json says of a trained CLIP; and found.png."""
    embeddings = embed_images(clip, images, partial(progress, "embeddings of test images"))
    found = search(clip, embeddings, images, [*class_queries(images.classes), *options.queries])
    with replacing(options.output / "found.png") as path:
        draw_found(found, images).savefig(path, dpi=120)
    return {
        "top1": accuracy(clip, images, progress),
        "top1_of_unseen_prompts": accuracy_of_prompts(clip, embeddings, images),
        "search": [each.to_dict() for each in found],
        "scale": clip.scale,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in clip.named_children()},
    }


def run(options: argparse.Namespace) -> None:
    require("train,embed,clip", "matplotlib", "pyarrow", "open_clip", what="this example")
    progress, test = Progress(), validation_source(options.data)
    check_same_classes(training_source(options.data), test)
    test = Selected.evenly(test, options.test_images)
    with progress.bar:
        clip, results = trained(options, progress)
        with timed(results["seconds"], "evaluation"):
            results = measured(clip, test, options, progress) | results
    settings = {name: getattr(options, name) for name in ("steps", "batch_size", "seed")}
    results["settings"] = settings | {"test_images": len(test)}
    results["threads"] = torch.get_num_threads()
    results["versions"] = {library.__name__: str(library.__version__) for library in (torch, fastvit)}
    with replacing(options.output / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    if options.json:
        print(json.dumps(results))
        return
    print(table(results))
    print(f"\n{options.output}: " + ", ".join(f"{part} {took:.0f} s" for part, took in results["seconds"].items()))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", required=True, help="with train/CLASS/* and test/CLASS/*")
    add("--output", type=Path, default=Path("runs/tiny_clip"), help="receives all that is written (%(default)s)")
    add("--queries", nargs="+", metavar="TEXT", default=QUERIES, help="texts to search for, beside one for each class")
    add("--steps", type=int, default=300, help="training steps (%(default)s)")
    add("--batch-size", type=int, default=100, help="images of each class in a step (%(default)s)")
    add("--test-images", type=int, default=0, help="to measure with, spread evenly over the classes (0: all)")
    add("--seed", type=int, default=0, help="of every random draw (%(default)s)")
    add("--quick", action="store_true", help="fewer steps and test images, to see it run")
    add("--json", action="store_true", help="print the results as JSON")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    check_least(parser, options, steps=1, batch_size=1, test_images=0, seed=0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return status_of(lambda: run(options), options.output / "features")


if __name__ == "__main__":
    sys.exit(main())
