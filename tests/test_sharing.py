"""Models as others take them: folders and repositories that timm's own class reads, and those that it writes."""

import json
import re
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from helpers.command import run
from helpers.hub_server import Hub
from helpers.small import SMALL, equal, small, timms_small
from huggingface_hub import constants
from PIL import Image
from torch import nn

import fastvit
from fastvit import FastViT, FastViTWarning, WeightsError, load, push_to_hub, save_pretrained
from fastvit.evaluation.metrics import Metrics
from fastvit.sharing import upload
from fastvit.sharing.pretrained import config
from fastvit.testing import randomize

pytestmark = [
    pytest.mark.usefixtures("small_variants"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the Hub's client to its HTTP library
]
LABELS = ["a", "بهتر", "c | d"]
Small = Callable[..., FastViT]


def model_of(name: str = "fastvit_t8", labels: list[str] | None = None, **arguments: Any) -> FastViT:
    """A small one, which has its own preprocessing."""
    model = small(name, **arguments)
    model.pretrained_cfg |= {"architecture": name, "label_names": labels, "mean": (0.5, 0.4, 0.3), "license": "mit"}
    model.pretrained_cfg |= {"input_size": (model.in_chans, 96, 64), "crop_pct": 0.8, "crop_mode": "center"}
    return model


@pytest.fixture
def model() -> FastViT:
    return model_of(labels=LABELS, num_classes=3)


def timm_reads(where: str, name: str = "fastvit_t8") -> nn.Module:
    """A model of timm's own class, as small, with the weights that are there."""
    row = SMALL[name]
    made: nn.Module = timm.create_model(where, pretrained=True, layers=row.depths, embed_dims=row.widths).eval()
    assert not isinstance(made, FastViT)
    return made


def same(ours: nn.Module, theirs: nn.Module, channels: int = 3) -> None:
    images = torch.randn(2, channels, 96, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def front_matter(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    parsed = yaml.safe_load(header)
    assert isinstance(parsed, dict)
    return parsed


def programs(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


# Folders


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fastvit_t8", {"num_classes": 3}),
        ("fastvit_sa12", {"num_classes": 7, "in_chans": 1}),
        pytest.param("fastvit_sa12", {"num_classes": 0}, marks=pytest.mark.slow),
        ("fastvit_t8", {"num_classes": 2, "global_pool": "catavgmax"}),
        ("fastvit_mci0", {}),
        pytest.param("fastvit_mci0", {"num_classes": 3, "global_pool": "max"}, marks=pytest.mark.slow),
    ],
)
def test_timms_own_class_reads_a_folder_and_computes_and_prepares_the_same(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model = model_of(name, **arguments)
    save_pretrained(model, tmp_path / "folder")
    theirs = timm_reads(f"local-dir:{tmp_path / 'folder'}", name)
    same(model, theirs, model.in_chans)
    prepared = timm.data.resolve_model_data_config(theirs)
    own = model.pretrained_cfg
    assert all(tuple(prepared[key]) == tuple(own[key]) for key in ("input_size", "std") if model.in_chans == 3)
    assert [prepared[key] for key in ("crop_pct", "crop_mode", "interpolation")] == [
        0.8,
        "center",
        own["interpolation"],
    ]
    assert equal(load(tmp_path / "folder"), model)


def test_what_is_written_comes_back_bit_for_bit_with_its_labels_and_preprocessing(
    model: FastViT, tmp_path: Path
) -> None:
    save_pretrained(model, tmp_path / "a/b")
    again = load(tmp_path / "a/b")
    assert equal(again, model) and again.preprocess == model.preprocess
    assert again.pretrained_cfg["label_names"] == LABELS and again.pretrained_cfg["license"] == "mit"
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_config_has_the_keys_that_timm_writes(tmp_path: Path) -> None:
    theirs = timms_small("fastvit_t8", num_classes=3)
    timm.models.save_for_hf(theirs, tmp_path, {"label_names": LABELS})
    expected = json.loads((tmp_path / "config.json").read_text())
    model = model_of(labels=LABELS, num_classes=3)
    model.pretrained_cfg["tag"] = "mine"
    ours = json.loads(json.dumps(config(model)))
    assert ours.keys() == expected.keys()
    assert ours["pretrained_cfg"].keys() == expected["pretrained_cfg"].keys()
    for key in ("first_conv", "classifier", "custom_load", "fixed_input_size"):
        assert ours["pretrained_cfg"][key] == expected["pretrained_cfg"][key]
    assert ours["label_names"] == LABELS and ours["num_features"] == expected["num_features"] == model.num_features


@pytest.mark.parametrize("form", ["fused", pytest.param("partial", marks=pytest.mark.slow)])
def test_fused_models_are_shared_in_our_names_and_timms_are_refused_with_advice(
    form: str, model: FastViT, tmp_path: Path
) -> None:
    fused = fastvit.reparameterize(model)
    if form == "partial":
        fastvit.save(fused, tmp_path / "partial.safetensors", names="timm")
        fused = load(tmp_path / "partial.safetensors")
    with pytest.raises(ValueError, match=r"give the unfused model, overparameterize.model., or names='fastvit'"):
        save_pretrained(fused, tmp_path / "timms")
    save_pretrained(fused, tmp_path / "ours", names="fastvit")
    again = load(tmp_path / "ours")
    assert equal(again, fused) and fastvit.form_of(again) == form
    card = (tmp_path / "ours/README.md").read_text()
    assert front_matter(card)["library_name"] == "fastvit" and "Other libraries do not read it" in card
    save_pretrained(fastvit.overparameterize(fused), tmp_path / "timms")
    same(fused, timm_reads(f"local-dir:{tmp_path / 'timms'}"))


def test_fastvithd_says_that_timm_lacks_it(tmp_path: Path) -> None:
    save_pretrained(model_of("fastvithd"), tmp_path / "hd")
    card = (tmp_path / "hd/README.md").read_text()
    assert "lacks this architecture until `fastvit.register_timm()` is called" in card
    assert front_matter(card)["pipeline_tag"] == "image-feature-extraction"
    assert load(tmp_path / "hd").pretrained_cfg["architecture"] == "fastvithd"


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_half_precision_halves_the_file_and_timm_reads_it(model: FastViT, dtype: torch.dtype, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "whole")
    save_pretrained(model, tmp_path / "half", dtype=dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.8 * sizes[1]
    same(load(tmp_path / "half"), timm_reads(f"local-dir:{tmp_path / 'half'}"))


def test_a_model_that_is_there_is_replaced_only_when_asked_and_other_files_stay(model: FastViT, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save_pretrained(model, tmp_path)
    other = model_of(num_classes=5)
    with pytest.raises(
        ValueError, match=r"holds README.md, config.json, model.safetensors already: give overwrite=True"
    ):
        save_pretrained(other, tmp_path)
    assert equal(load(tmp_path), model)
    save_pretrained(other, tmp_path, overwrite=True)
    assert equal(load(tmp_path), other) and (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds other weights \(pytorch_model.bin\)"):
        save_pretrained(model, tmp_path, overwrite=True)


def test_all_is_written_or_nothing(model: FastViT, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        save_pretrained(model, tmp_path / "folder")
    model = model_of(num_classes=3)
    model.pretrained_cfg["crop_pct"] = 7
    with pytest.raises(ValueError, match="crop"):
        save_pretrained(model, tmp_path / "folder")
    model.pretrained_cfg |= {"crop_pct": 0.9, "label_names": list("abcd")}
    with pytest.raises(ValueError, match="label_names"):
        save_pretrained(model, tmp_path / "folder")
    with pytest.raises(TypeError, match=r"model is a Linear, expected a FastViT, as fastvit.load"):
        save_pretrained(nn.Linear(1, 1), tmp_path / "folder")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names is 'apple', expected 'fastvit' or 'timm'"):
        save_pretrained(model, tmp_path / "folder", names="apple")
    assert not any(tmp_path.iterdir())


# The card


def counted(correct: int, images: int, classes: int = 3) -> Metrics:
    metrics = Metrics(LABELS, range(3), classes)
    logits = 4 * torch.eye(classes)[:3][[0] * images]
    metrics.add(logits, torch.tensor([0] * correct + [1] * (images - correct)))
    return metrics


def test_the_card_claims_what_was_counted_and_measured(model: FastViT, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "pets", metrics=counted(3, 4), dataset="my | pets")
    card = (tmp_path / "pets/README.md").read_text()
    header = front_matter(card)
    assert header["tags"] == ["image-classification", "fastvit", "timm", "transformers"]
    assert (header["library_name"], header["license"]) == ("timm", "mit")
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["name"] == "my | pets" and result["task"]["type"] == "image-classification"
    assert [(each["name"], each["value"]) for each in result["metrics"]] == [("top-1 accuracy", 0.75)]
    parameters = [sum(p.numel() for p in each.parameters()) for each in (model, fastvit.reparameterize(model))]
    assert f"| parameters | {parameters[0]:,}, and {parameters[1]:,} once reparameterized |" in card
    assert "On 4 images of my \\| pets" in card and "| top-1 accuracy | 75.00 % |" in card and "top-5" not in card
    assert "بهتر, c \\| d" in card
    error = re.search(r"changes outputs by (\S+) of the largest, in float32", card)
    assert error and 1e-9 < float(error[1]) < 1e-5


def test_without_an_evaluation_no_accuracy_is_claimed(model: FastViT, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "pets")
    card = (tmp_path / "pets/README.md").read_text()
    assert "accuracy" not in card and "model-index" not in front_matter(card)


def test_the_card_names_the_folder_also_where_it_is_the_current_one(
    model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    save_pretrained(model, ".")
    card = Path("README.md").read_text()
    assert "\n# pets\n" in card and all('"local-dir:pets"' in program for program in programs(card))


def test_metrics_of_a_model_of_other_classes_are_refused(model: FastViT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics are of 4 classes, and the model has 3"):
        save_pretrained(model, tmp_path / "pets", metrics=counted(1, 2, classes=4))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("license", "told"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("apple-amlr", {"license": "apple-amlr"}),
        ("fastvit-license", {"license": "other", "license_name": "fastvit-license"}),
        ("my own\nterms: {}", {"license": "other", "license_name": "my own\nterms: {}"}),
        (None, {}),
    ],
)
def test_the_licence_is_one_that_the_hub_knows_or_another_by_name(
    license: str | None, told: dict[str, str], model: FastViT, tmp_path: Path
) -> None:
    model.pretrained_cfg["license"] = license
    save_pretrained(model, tmp_path / "pets")
    header = front_matter((tmp_path / "pets/README.md").read_text())
    link = header.pop("license_link", "")
    assert {key: value for key, value in header.items() if key.startswith("license")} == told
    assert bool(link) == (license == "fastvit-license")


def test_hostile_names_of_classes_are_text_in_a_card(model: FastViT, tmp_path: Path) -> None:
    model.pretrained_cfg["label_names"] = ["</td><script>", "| x |", "[a](http://b)"]
    save_pretrained(model, tmp_path / "pets")
    row = next(line for line in (tmp_path / "pets/README.md").read_text().splitlines() if line.startswith("| outputs"))
    assert row == r"| outputs | 3 classes: \</td\>\<script\>, \| x \|, \[a\]\(http://b\) |"


@pytest.mark.slow
def test_the_cards_programs_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # of the small variants: timm's own is whole
    model = load("fastvit_t8.cifar10")
    monkeypatch.chdir(tmp_path)
    save_pretrained(model, "planes")
    Image.effect_noise((90, 70), 80).convert("RGB").save("image.jpg")
    ours, theirs = programs(Path("planes/README.md").read_text())
    exec(ours, {})
    assert fastvit.predict(model, "image.jpg").label in capsys.readouterr().out
    names: dict[str, Any] = {}
    exec(theirs, names)
    expected = model(model.preprocess.read(["image.jpg"]))
    torch.testing.assert_close(names["output"], expected, rtol=1e-4, atol=1e-5)


# Repositories


@pytest.fixture
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    hub.tokens.add("hf_of_this_test")
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    return "hf_of_this_test"


@pytest.mark.usefixtures("token")
def test_what_is_pushed_both_libraries_load(model: FastViT, hub: Hub) -> None:
    url = push_to_hub(model, "user/pets", metrics=counted(3, 4), commit_message="The first")
    assert url == f"{hub.endpoint}/user/pets" and hub.repositories["user/pets"].messages == ["The first"]
    assert sorted(hub.repositories["user/pets"].files) == ["README.md", "config.json", "model.safetensors"]
    for source in ("hf-hub:user/pets", "hf_hub:user/pets", "user/pets"):
        again = load(source)
        assert equal(again, model) and again.pretrained_cfg["label_names"] == LABELS
    same(model, timm_reads("hf-hub:user/pets"))
    card = hub.repositories["user/pets"].files["README.md"].decode()
    assert all('"hf-hub:user/pets"' in program for program in programs(card))


@pytest.mark.usefixtures("token")
def test_what_timm_pushes_is_loaded(hub: Hub) -> None:
    theirs = randomize(timms_small("fastvit_t8", num_classes=3)).eval()
    timm.models.push_to_hf_hub(theirs, "user/theirs", model_config={"label_names": LABELS})
    ours = load("hf-hub:user/theirs")
    same(ours, theirs)
    assert ours.pretrained_cfg["label_names"] == LABELS
    assert "pytorch_model.bin" not in hub.asked("GET")  # which lies there too


@pytest.mark.slow
@pytest.mark.usefixtures("token")
def test_a_revision_is_a_branch_and_is_loaded_by_name(model: FastViT, hub: Hub) -> None:
    push_to_hub(model, "user/pets")
    commit = hub.repositories["user/pets"].revisions["main"]
    url = push_to_hub(model_of(num_classes=5), "user/pets", revision="five", overwrite_card=True)
    assert url.endswith("/user/pets/tree/five") and hub.repositories["user/pets"].revisions["main"] == commit
    assert load("user/pets@five").num_classes == 5
    with pytest.raises(WeightsError, match="has no revision 'six'"):
        load("hf-hub:user/pets@six")


@pytest.mark.usefixtures("token")
def test_a_card_that_is_there_stays_unless_asked_and_so_do_other_weights(model: FastViT, hub: Hub) -> None:
    files = {"README.md": b"# By hand", "pytorch_model.bin": b"old"}
    hub.publish("user/pets", dict(files))
    with pytest.warns(FastViTWarning) as said:
        push_to_hub(model, "user/pets")
    messages = [str(each.message) for each in said if each.category is FastViTWarning]
    assert [message.partition(":")[2][:30] for message in messages] == [
        " its README.md stays as it is;", " also holds pytorch_model.bin,",
    ]  # fmt: skip
    assert {name: hub.repositories["user/pets"].files[name] for name in files} == files
    del hub.repositories["user/pets"].files["pytorch_model.bin"]
    push_to_hub(model, "user/pets", overwrite_card=True)
    assert hub.repositories["user/pets"].files["README.md"].startswith(b"---\n")


@pytest.mark.slow
@pytest.mark.usefixtures("token")
def test_a_public_repository_does_not_become_private_without_a_word(model: FastViT, hub: Hub) -> None:
    push_to_hub(model, "user/mine", private=True)
    assert hub.repositories["user/mine"].private
    hub.publish("user/pets", {})
    with pytest.warns(FastViTWarning, match="user/pets: is there already and stays public"):
        push_to_hub(model, "user/pets", private=True)


@pytest.mark.slow
@pytest.mark.usefixtures("token")
def test_a_name_alone_is_of_the_tokens_user(model: FastViT, hub: Hub) -> None:
    assert push_to_hub(model, "pets") == f"{hub.endpoint}/user/pets"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("how", "kind", "named"),
    [
        ("no token", PermissionError, "there is no token for .*: log in with `hf auth login`"),
        ("wrong token", PermissionError, "answered 401: this token may not write there: log in"),
        ("403", PermissionError, "answered 403: this token may not write there"),
        ("404", PermissionError, "answered 404: no such user or organization"),
        ("500", ConnectionError, "answered 500 .*: try again later"),
        ("down", ConnectionError, "could not be reached .*: try again later, or look at HF_ENDPOINT"),
        ("offline", ConnectionError, "nothing is uploaded while HF_HUB_OFFLINE is set: unset it"),
        ("silent", ConnectionError, "could not be reached .no response within 0 s.: try again later"),
        ("silent later", ConnectionError, "could not be reached .no response within 0 s.: try again later"),
        ("name", ValueError, "'user/a/b' is no repository's name, expected USER/NAME"),
    ],
)
def test_what_goes_wrong_is_one_line_that_says_what_to_do(
    how: str,
    kind: type[Exception],
    named: str,
    model: FastViT,
    hub: Hub,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if how == "no token":
        monkeypatch.delenv("HF_TOKEN")
    elif how.isdecimal():
        hub.upload_status = int(how)
    elif how == "down":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    elif how == "silent":
        monkeypatch.setattr(constants, "ENDPOINT", request.getfixturevalue("silent"))
        monkeypatch.setattr(upload, "SECONDS", 0.3)
    elif how == "silent later":
        monkeypatch.setattr(upload, "WAIT", 0.3)
        monkeypatch.setattr(upload, "SLOWEST", 1e9)
        monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda *_, **given: threading.Event().wait(9))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "offline")
    huggingface_hub.close_session()
    wrong = "hf_another" if how == "wrong token" else None
    with pytest.raises(kind, match=named) as error:
        push_to_hub(model, "user/a/b" if how == "name" else "user/pets", token=wrong)
    assert str(error.value).isprintable() and token not in str(error.value)


def published(hub: Hub, model: FastViT, folder: Path, name: str = "user/pets") -> Path:
    save_pretrained(model, folder)
    hub.publish(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    return folder


def test_only_what_is_needed_is_downloaded_and_once(model: FastViT, hub: Hub, tmp_path: Path) -> None:
    published(hub, model, tmp_path / "pets")
    hub.repositories["user/pets"].files |= {"pytorch_model.bin": b"other", "training.log": b"long"}
    load("user/pets")
    assert sorted(hub.asked("GET")) == ["config.json", "model.safetensors"]
    hub.requests.clear()
    load("user/pets")
    assert hub.asked("GET") == []


@pytest.mark.parametrize("how", ["offline", "down"])
def test_what_was_loaded_once_needs_no_network_and_else_it_is_one_line(
    how: str, model: FastViT, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub, model, tmp_path / "pets")
    load("hf-hub:user/pets")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.status = 503
    assert load("hf-hub:user/pets").pretrained_cfg["label_names"] == LABELS
    with pytest.raises(WeightsError, match="user/other") as error:
        load("hf-hub:user/other")
    assert str(error.value).isprintable()


def test_a_folder_here_goes_first_and_it_is_said_where_both_are_known(
    model: FastViT, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub, model, tmp_path / "pets")
    other = model_of(num_classes=5)
    save_pretrained(other, tmp_path / "user/pets")
    monkeypatch.chdir(tmp_path)
    assert equal(load("user/pets"), other)  # nobody here has heard of the repository
    assert equal(load("hf-hub:user/pets"), model)
    with pytest.warns(FastViTWarning, match="the folder here is read, and not the repository: hf-hub:user/pets"):
        assert equal(load("user/pets"), other)
    assert equal(load("local-dir:user/pets"), other)


@pytest.mark.parametrize("beside", [["config.json"], ["config.json", "preprocessor_config.json"], []], ids=str)
def test_what_another_library_put_into_the_cache_is_loaded_at_once_without_a_hub(
    beside: list[str], model: FastViT, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(hub, model, tmp_path / "pets")
    (folder / "preprocessor_config.json").write_text('{"resample": 3}')
    hub.repositories["user/pets"].files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("model.safetensors", *beside):
        huggingface_hub.hf_hub_download("user/pets", name, cache_dir=constants.HF_HUB_CACHE)
    hub.requests.clear()
    hub.status = 503
    if beside:
        assert load("user/pets").pretrained_cfg["label_names"] == LABELS
        assert {request.path for request in hub.requests} == {"model.safetensors"}  # whether the branch has moved on
        return
    with pytest.warns(
        FastViTWarning, match="answered 503 to config.json.*; the weights are in the cache, and were taken"
    ):
        assert equal(load("user/pets"), model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert equal(load("user/pets"), model)


def test_an_address_of_the_hubs_pages_is_its_repository_or_the_one_file(
    model: FastViT, hub: Hub, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in published(hub, model, tmp_path / "pets").iterdir()}
    other = model_of(num_classes=5)
    fastvit.save(other, tmp_path / "other.safetensors")
    files["other.safetensors"] = (tmp_path / "other.safetensors").read_bytes()
    hub.publish("user/pets", files, revisions={"main": "1" * 40, "second": "2" * 40})
    for host in ("https://huggingface.co", "HTTPS://www.huggingface.co", "http://hf.co", hub.endpoint):
        for page in ("", "/", "/tree/main", "/tree/second", "/resolve/main/model.safetensors?download=true"):
            assert equal(load(f"{host}/user/pets{page}"), model), page
    assert {path.parent.name for path in tmp_path.rglob("model.safetensors")} >= {"1" * 40, "2" * 40}
    made = fastvit.create_model(f"{hub.endpoint}/user/pets", pretrained=True).eval()
    assert isinstance(made, FastViT) and equal(made, model)
    del files["config.json"]  # which speaks of another model
    for page in ("/blob/main/other.safetensors", "/resolve/second/other.safetensors#top"):
        hub.publish("user/pets", files, revisions={"main": "3" * 40, "second": "4" * 40})
        assert equal(load(f"https://huggingface.co/user/pets{page}"), other), page


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/datasets/user/pets",
        "https://huggingface.co/user/pets/resolve/main/folder/model.safetensors",
        "https://huggingface.co/user",
        "https://example.com/user/pets",
    ],
)
def test_other_addresses_are_one_line_that_says_to_download(address: str, hub: Hub) -> None:
    with pytest.raises(WeightsError, match=f"^{address}: an address is not downloaded: download the file, and give"):
        load(address)
    assert not hub.requests


def test_an_address_of_what_is_nowhere_is_said_of_the_hub_alone(hub: Hub) -> None:
    hub.publish("user/pets", {})
    with pytest.raises(WeightsError, match=r"^user/frist was not found at"):
        load("https://huggingface.co/user/frist")
    with pytest.raises(WeightsError, match=r"^user/pets.* has no revision 'refs/pr/1'"):
        load("https://huggingface.co/user/pets/tree/refs%2Fpr%2F1")


def test_what_is_nowhere_is_said_of_both_places(hub: Hub) -> None:
    with pytest.raises(WeightsError, match="runs/frist: no such file here, and of the Hub runs/frist was not"):
        load("runs/frist")
    for wrong in ("hf-hub:pets", "hf-hub:", "hf-hub:a/b/c"):
        with pytest.raises(WeightsError, match="expected hf-hub:owner/name"):
            load(wrong)
    with pytest.raises(WeightsError, match="no such file, and no checkpoint of that name"):
        load("a/b/c")


def test_a_repository_of_the_catalogue_is_its_row(hub: Hub, tmp_path: Path) -> None:
    fastvit.save(model_of(num_classes=1000), tmp_path / "model.safetensors", names="timm")
    hub.publish("timm/fastvit_t8.apple_in1k", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    names = load("timm/fastvit_t8.apple_in1k").pretrained_cfg["label_names"]
    assert names and names[0] == "tench"


def test_weights_of_anothers_name_are_found_and_several_are_not_guessed(
    model: FastViT, hub: Hub, tmp_path: Path
) -> None:
    folder = published(hub, model, tmp_path / "pets")
    weights = (folder / "model.safetensors").read_bytes()
    hub.publish("user/own", {"best.safetensors": weights, "config.json": (folder / "config.json").read_bytes()})
    assert equal(load("user/own"), model)
    hub.publish("user/many", {"a.safetensors": weights, "b.pt": weights})
    with pytest.raises(WeightsError, match=r"holds 2 files of weights \(a.safetensors, b.pt\)"):
        load("hf-hub:user/many")
    hub.publish("user/none", {"README.md": b""})
    with pytest.raises(WeightsError, match="holds 0 files of weights"):
        load("hf-hub:user/none")


def test_a_pickle_is_read_safely_and_a_damaged_file_is_not_kept(model: FastViT, hub: Hub, tmp_path: Path) -> None:
    with pytest.warns(FastViTWarning, match="has no header"):
        fastvit.save(model, tmp_path / "pytorch_model.bin", names="timm")
    hub.publish("user/pickled", {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})
    assert equal(load("user/pickled"), model)
    torch.save({"a": nn.Linear(1, 1)}, tmp_path / "evil.bin")
    hub.publish("user/evil", {"pytorch_model.bin": (tmp_path / "evil.bin").read_bytes()})
    with pytest.raises(WeightsError, match="refused: it holds a whole torch"):
        load("hf-hub:user/evil")
    hub.publish("user/damaged", {"model.safetensors": b"\xff" * 2000})
    with pytest.raises(WeightsError, match="removed from the cache"):
        load("hf-hub:user/damaged")
    hub.publish(
        "user/damaged",
        {"model.safetensors": (published(hub, model, tmp_path / "b") / "model.safetensors").read_bytes()},
    )
    assert equal(load("hf-hub:user/damaged"), model)


@pytest.mark.slow
def test_whatever_takes_a_model_takes_a_repository(model: FastViT, hub: Hub, tmp_path: Path) -> None:
    published(hub, model, tmp_path / "pets")
    image = tmp_path / "image.png"
    Image.effect_noise((120, 100), 80).convert("RGB").save(image)
    label = fastvit.predict(model, image).label
    assert fastvit.predict("hf-hub:user/pets", image).label == label
    made = fastvit.create_model("hf-hub:user/pets", pretrained=True, drop_rate=0.5)
    assert isinstance(made, FastViT) and equal(made, model) and made.training and made.drop_rate == 0.5
    assert equal(fastvit.create_model("fastvit_t8", checkpoint_path="user/pets"), model)
    with pytest.raises(ValueError, match="hf-hub:user/pets names weights: give pretrained=True"):
        fastvit.create_model("hf-hub:user/pets")
    fastvit.convert("user/pets", tmp_path / "again.safetensors")
    assert equal(load(tmp_path / "again.safetensors"), model)
    shown = json.loads(run("classify", str(image), "--model", "hf-hub:user/pets", "--json").stdout)
    assert shown["predictions"][0]["label"] == label


# The command


@pytest.mark.usefixtures("token")
def test_push_measures_uploads_and_prints_the_address(model: FastViT, hub: Hub, tmp_path: Path) -> None:
    fastvit.save(model, tmp_path / "model.safetensors")
    data = fastvit.testing.write_images(tmp_path / "pets", LABELS, val=2)
    given = (tmp_path / "model.safetensors", "user/pets", "--data", data, "--private", "--dataset", "pets")
    status, out, error = run("push", *given)
    assert (status, out) == (0, f"{hub.endpoint}/user/pets\n"), error
    assert hub.repositories["user/pets"].private
    card = hub.repositories["user/pets"].files["README.md"].decode()
    expected = fastvit.evaluate(model, data)
    (result,) = front_matter(card)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(expected.top1 / 100, 6) and result["dataset"]["name"] == "pets"
    with warnings.catch_warnings():
        warnings.simplefilter("always", FastViTWarning)
        status, out, error = run("push", tmp_path / "model.safetensors", "user/pets", "--json")
    assert status == 0 and json.loads(out)["url"] == f"{hub.endpoint}/user/pets"
    assert "warning: user/pets: its README.md stays as it is" in error


def test_push_without_a_token_says_so_before_anything_is_measured(tmp_path: Path, hub: Hub) -> None:
    status, out, error = run("push", tmp_path / "nothing", "user/pets", "--data", tmp_path)
    assert (status, out) == (2, "") and "there is no token" in error and error.count("\n") == 1
    assert run("push", "fastvit_t8.cifar10", "user/pets", "--split", "val").status == 2


@pytest.mark.parametrize(
    ("repository", "expected"), [("user/a/b", "is no repository's name"), ("user/pets", "could not be reached")]
)
def test_push_with_a_wrong_name_or_a_dead_hub_says_so_before_anything_is_measured(
    repository: str, expected: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    status, out, error = run("push", tmp_path / "nothing", repository, "--data", tmp_path)
    assert (status, out) == (2, "") and expected in error and error.count("\n") == 1 and token not in error


@pytest.mark.slow
@pytest.mark.usefixtures("token")
def test_a_trained_run_is_shared_with_its_classes_and_another_starts_from_it(hub: Hub, tmp_path: Path) -> None:
    from helpers.small_run import small_trainer

    from fastvit.training import Recipe, open_sources
    from fastvit.training.initial_weights import initial_model

    data = fastvit.testing.write_images(tmp_path / "data", ("sofa", "table"), train=4, val=2)
    run = small_trainer(data, tmp_path / "run").train().output
    with pytest.warns(FastViTWarning, match=r"read model.safetensors, and not best.safetensors"):
        trained = load(run)
    push_to_hub(trained, "user/rooms", metrics=fastvit.evaluate(trained, data))
    again = load("user/rooms")
    assert equal(again, trained) and again.pretrained_cfg["label_names"] == ["sofa", "table"]
    same(again, timm_reads("hf-hub:user/rooms"))
    for model in ("hf-hub:user/rooms", "user/rooms"):
        recipe = Recipe(model=model, size=32)
        started, _ = initial_model(recipe, open_sources(recipe, data, "")[0])
        assert equal(started, trained)
