"""fastvit push: a model, with a card of what was measured, to the Hugging Face Hub."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from .options import Json, ModelName
from .output import Progress, say, say_json, working


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What is uploaded, and where to, as `fastvit.push_to_hub` takes it.

    Attributes:
        private: Make a repository that only you see.
        revision: Branch, which is made if it is not there. [default: main]
        commit_message: What the commit says.
        names: Whose names the weights have; fused models have only fastvit's.
        overwrite_card: Replace the README.md that is there.
    """

    private: bool = False
    revision: str | None = None
    commit_message: str = "Upload the model"
    names: Literal["timm", "fastvit"] = "timm"
    overwrite_card: bool = False


def push(
    model: ModelName,
    repository: Annotated[str, Parameter(help="USER/NAME, or NAME for a repository of your own.")],
    /,
    *,
    options: PushOptions = PushOptions(),
    data: Annotated[str, Parameter(help="Labelled images to measure the card's accuracy on, as for evaluate.")] = "",
    split: Annotated[str, Parameter(help="Part of --data. [default: val, validation or test]")] = "",
    dataset: Annotated[str, Parameter(help="What the card calls the data. [default: its path]")] = "",
    json: Json = False,
) -> None:
    """Share a model on the Hugging Face Hub, where fastvit and timm load it by name.

    Its weights, config.json and a model card go up in one commit. The card
    claims only what was measured: with --data also the accuracy there. Log in
    first with `hf auth login`, or set HF_TOKEN.

    For example:

        fastvit push runs/pets me/pets --data pets --private
        fastvit push fastvit_t8.cifar10 me/planes --revision second
    """
    from ..checkpoint import loaded
    from ..evaluation.validation import evaluate
    from ..models.fastvit import FastViT
    from ..sharing.pretrained import push_to_hub
    from ..sharing.upload import Commit

    if not data and (split or dataset):
        raise ValueError("--split and --dataset are about --data: give it as well")
    Commit(repository, None, options.revision)  # which says what is wrong before anything is measured
    subject, metrics = loaded(model, FastViT), None
    if data:
        with Progress() as bar:
            metrics = evaluate(subject, data, split=split, progress=lambda done, total, _: bar.update(done, total))
    with working(f"uploading to {repository}"):
        url = push_to_hub(subject, repository, metrics=metrics, dataset=dataset or data, **vars(options))
    if json:
        say_json({"model": model, "repository": repository, "url": url})
    else:
        say(url)
