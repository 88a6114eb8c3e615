"""What the files beside weights say of them: config.json of timm, transformers, open_clip and Apple."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import run
from helpers.small import SMALL, small, timms_small
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from timm.models import save_for_hf
from torch import nn

import fastvit
from fastvit import CONFIGS, FastViT, FastViTWarning, WeightsError, create_model, load, save
from fastvit.testing import randomize
from fastvit.weights.folder_dialects import config
from fastvit.weights.labels import imagenet_names, labels

pytestmark = pytest.mark.usefixtures("small_variants")
LABELS = ["a", "بهتر", "c"]
SAID = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "input_size": [3, 96, 96], "crop_pct": 0.8}
SAID |= {"interpolation": "bilinear", "license": "mit"}


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((150, 110), 80).convert("RGB")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    folder = tmp_path_factory.mktemp("plain")
    return folder, timms_folder(folder)


@pytest.fixture
def theirs(plain: tuple[Path, nn.Module], tmp_path: Path) -> nn.Module:
    """A model of timm's class, which lies in tmp_path."""
    shutil.copytree(plain[0], tmp_path, dirs_exist_ok=True)
    return plain[1]


def timms_folder(folder: Path, name: str = "fastvit_t8", **arguments: Any) -> nn.Module:
    """A model of timm's class, saved as timm saves what it shares."""
    model = randomize(timms_small(name, num_classes=3, **arguments)).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, **SAID}
    save_for_hf(model, folder, {"label_names": LABELS}, safe_serialization=True)
    return model


def named(name: str, **arguments: Any) -> FastViT:
    model = small(name, **arguments)
    model.pretrained_cfg["architecture"] = name
    return model


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """config.json of `folder`, changed in place."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def failure(source: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(source)
    message = str(error.value)
    assert message.isprintable() and len(message) <= 1600
    return message


# timm


@pytest.mark.parametrize("name", [name for name in SMALL if name != "fastvithd"])
def test_a_folder_that_timm_saved_computes_prepares_and_names_as_timms_class(
    name: str, tmp_path: Path, image: Image.Image
) -> None:
    model = timms_folder(tmp_path, name, global_pool="max")
    ours = load(tmp_path)
    transform = create_transform(**resolve_data_config({}, model=model), is_training=False)
    assert torch.equal(ours.preprocess(image), transform(image))
    images = torch.stack([transform(image), torch.randn(3, 96, 96)])
    torch.testing.assert_close(ours(images), model(images), rtol=1e-4, atol=1e-5)
    assert ours.pretrained_cfg["label_names"] == LABELS and ours.pretrained_cfg["license"] == "mit"
    assert ours.pretrained_cfg["architecture"] == name and ours.global_pool == "max"


@pytest.mark.slow
def test_whatever_takes_a_model_follows_the_folder(theirs: nn.Module, tmp_path: Path, image: Image.Image) -> None:
    path = tmp_path / "image.png"
    transform = create_transform(**resolve_data_config({}, model=theirs), is_training=False)
    label = LABELS[int(theirs(transform(image)[None]).argmax())]
    folder = shutil.copytree(tmp_path, tmp_path / "model")
    image.save(path)
    assert fastvit.predict(folder, path).label == label
    made = create_model("fastvit_t8", checkpoint_path=folder).eval()
    assert isinstance(made, FastViT) and fastvit.predict(made, path).label == label
    fastvit.convert(folder, tmp_path / "ours.safetensors")
    assert fastvit.predict(tmp_path / "ours.safetensors", path).label == label
    shown = json.loads(run("classify", str(path), "--model", str(folder), "--json").stdout)
    assert shown["predictions"][0]["label"] == label
    data = fastvit.testing.write_images(tmp_path / "data", LABELS, val=1)
    assert fastvit.evaluate(load(folder), data).names == sorted(LABELS)


@pytest.mark.usefixtures("theirs")
def test_one_level_is_what_timm_once_wrote(tmp_path: Path) -> None:
    expected = load(tmp_path).pretrained_cfg

    def flatten(config: dict[str, Any]) -> None:
        config |= config.pop("pretrained_cfg")
        config["labels"] = config.pop("label_names")
        del config["model_args"]

    changed(tmp_path, flatten)
    assert load(tmp_path).pretrained_cfg == expected


def test_without_a_crop_mode_timm_means_the_centre_and_without_preprocessing_nothing() -> None:
    assert config({"architecture": "fastvithd", "pretrained_cfg": {"crop_pct": 0.9}})["crop_mode"] == "center"
    assert config({"architecture": "fastvithd", "pretrained_cfg": {}})["crop_mode"] is None


def test_images_of_one_channel_come_from_timm_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = timms_folder(tmp_path, in_chans=1)
    images = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(load(tmp_path)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("theirs")
def test_a_config_counts_for_the_file_of_the_usual_name_and_for_the_only_one(tmp_path: Path) -> None:
    assert load(tmp_path / "model.safetensors").pretrained_cfg["label_names"] == LABELS
    (tmp_path / "model.safetensors").rename(tmp_path / "epoch3.safetensors")
    assert load(tmp_path / "epoch3.safetensors").pretrained_cfg["label_names"] == LABELS  # the only one there
    assert load(tmp_path).pretrained_cfg["label_names"] == LABELS
    shutil.copy(tmp_path / "epoch3.safetensors", tmp_path / "model.safetensors")
    with pytest.warns(
        FastViTWarning, match=r"epoch3.safetensors: not used: config.json, as other weights lie there too"
    ):
        assert load(tmp_path / "epoch3.safetensors").pretrained_cfg["label_names"] is None
    assert load(tmp_path / "model.safetensors").pretrained_cfg["label_names"] == LABELS


@pytest.mark.slow
def test_what_the_catalogue_has_of_the_name_and_tag_names_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers' TimmWrapper names those of any model with 1000."""
    model = timms_small("fastvit_t8", num_classes=1000)
    save_for_hf(model, tmp_path, safe_serialization=True)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["tag"] == "apple_in1k"
    assert load(tmp_path).pretrained_cfg["label_names"] == imagenet_names()
    changed(tmp_path, lambda config: config["pretrained_cfg"].pop("tag"))
    assert load(tmp_path).pretrained_cfg["label_names"] is None
    changed(tmp_path, lambda config: config.update(label_names=ImageNetInfo().label_names()))
    assert load(tmp_path).pretrained_cfg["label_names"] == imagenet_names()


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"0": "a", "2": "c"}, ["a", "class 1", "c"]),
        ({"2": "c", "0": "a", "1": "b"}, ["a", "b", "c"]),
        ({"n01440764": "tench", "n01443537": "goldfish", "n01484850": "shark"}, ["tench", "goldfish", "shark"]),
        ([5, 7], ["5", "7"]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        ({"cat": 2, "dog": 0, "owl": 1}, ["dog", "owl", "cat"]),
        ({"cat": 2}, ["class 0", "class 1", "cat"]),
        ({0: "a", 1: "b"}, ["a", "b"]),
    ],
)
def test_labels_are_a_list_or_numbered_or_synsets(said: Any, named: list[str] | None) -> None:
    assert labels(said, 3) == named


@pytest.mark.usefixtures("theirs")
def test_weights_half_as_loaded_take_dropouts_and_are_made_anew_for_other_classes(tmp_path: Path) -> None:
    changed(tmp_path, lambda config: config["model_args"].update(drop_rate=0.25))
    assert load(tmp_path).drop_rate == 0.25
    with pytest.warns(FastViTWarning, match="started a new one of 5"):
        assert load(tmp_path, num_classes=5).pretrained_cfg["label_names"] is None


# transformers and Apple


def llava(folder: Path, **said: Any) -> FastViT:
    """Apple's FastVLM: the tower in a LLaVA's folder."""
    tower = named("fastvithd", num_classes=0)
    folder.mkdir()
    save(fastvit.reparameterize(tower), folder / "tower.pt", names="apple")
    state = torch.load(folder / "tower.pt")
    (folder / "tower.pt").unlink()
    prefix = "model.vision_tower.vision_tower.model."
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, folder / "pytorch_model.bin")
    config = {"model_type": "llava_qwen2", "mm_vision_tower": "mobileclip_l_512", "image_aspect_ratio": "pad"}
    (folder / "config.json").write_text(json.dumps(config | said))
    return tower


def test_apples_fastvlm_says_that_it_is_fastvithd_and_how_images_are_padded(tmp_path: Path) -> None:
    llava(tmp_path / "padded")  # no warning of twins
    cfg = load(tmp_path / "padded").pretrained_cfg
    assert (cfg["architecture"], cfg["input_size"], cfg["crop_mode"]) == ("fastvithd", (3, 512, 512), "border")
    llava(tmp_path / "cropped", image_aspect_ratio="square")
    size = {"size": {"shortest_edge": 512}, "crop_size": {"height": 512, "width": 512}, "image_mean": [0, 0, 0]}
    for folder in ("padded", "cropped"):
        (tmp_path / folder / "preprocessor_config.json").write_text(json.dumps(size))
    assert load(tmp_path / "padded").pretrained_cfg["crop_mode"] == "border"
    assert load(tmp_path / "cropped").pretrained_cfg["crop_mode"] == "center"
    (tmp_path / "padded/preprocessor_config.json").write_text(json.dumps(size | {"crop_size": 448}))
    message = failure(tmp_path / "padded")
    assert "input_size (3, 512, 512)" in message and "preprocessor_config.json (3, 448, 448)" in message


def test_a_processors_own_file_is_read_as_that_of_its_image_processor(tmp_path: Path) -> None:
    """Since transformers 5 it has both, and the tokenizer's options."""
    llava(tmp_path / "model", image_aspect_ratio="square")
    inner = {"size": {"shortest_edge": 512}, "crop_size": 512, "image_mean": [0.1] * 3, "resample": 2}
    for content in ({"processor_class": "LlavaProcessor"}, {"image_processor": inner}):
        (tmp_path / "model/processor_config.json").write_text(json.dumps(content))
        cfg = load(tmp_path / "model").pretrained_cfg
        said = ((0.1,) * 3, "bilinear") if "image_processor" in content else ((0.0,) * 3, "bicubic")
        assert (cfg["mean"], cfg["interpolation"]) == said
    (tmp_path / "model/processor_config.json").write_text('{"image_processor": [1]}')
    assert "processor_config.json: is no config that can be followed" in failure(tmp_path / "model")


def test_transformers_fastvlm_is_fastvithd_whatever_timm_calls_it(tmp_path: Path) -> None:
    vision = {"model_type": "timm_wrapper", "architecture": "fastvit_mci3", "num_classes": 2}
    llava(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": "fast_vlm", "vision_config": vision}))
    assert load(tmp_path / "model").pretrained_cfg["architecture"] == "fastvithd"


def test_apples_mobileclip_says_which_it_is(tmp_path: Path) -> None:
    model = named("fastvit_mci0")
    nn.init.zeros_(model.head.fc.bias)
    save(model, tmp_path / "model.pt", names="apple")
    config = {"embed_dim": 512, "image_cfg": {"image_size": 192, "model_name": "mci0"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).pretrained_cfg["input_size"] == (3, 192, 192)
    config["image_cfg"] = {"image_size": 192, "model_name": "mci1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "config.json: says 'fastvit_mci1', and the weights beside it are of a fastvit_mci0" in failure(tmp_path)


# What contradicts, and what cannot be


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "fastvit_sa12"}, "config.json: says 'fastvit_sa12', .* of a fastvit_t8"),
        ({"architecture": "resnet50"}, "config.json: says 'resnet50', .* of a fastvit_t8"),
        ({"num_classes": 4}, r"model.safetensors has num_classes 3, and .*config.json 4"),
        ({"num_classes": True}, "num_classes is True, expected a whole number"),
        ({"num_classes": "3"}, "num_classes is '3', expected a whole number"),
        ({"label_names": list("abcd")}, "label_names has 4 names, and there are 3 classes"),
        ({"label_names": {"9" * 500: "a"}}, "label_names names class 9"),
        ({"label_names": {"3": "a"}}, "label_names names class 3, and there are 3, from 0 on"),
        ({"label_names": {"-1": "a", "0": "b"}}, ""),
        ({"label_names": [["a"], None, 1]}, "label_names is no list of names"),
        ({"label_names": "abc"}, "label_names is no list of names"),
        ({"label_names": None, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "id2label has 0: 'a'"),
        ({"label_names": None, "label2id": {"a": 0, "b": "00"}}, "label2id is {'a': 0, 'b': '00'}, expected for each"),
        ({"label_names": None, "label2id": {"a": -1, "b": 0}}, "expected for each name a number of its own, from 0 on"),
        ({"label_names": None, "label2id": {"a": [0]}}, r"label2id is {'a': \[0\]}, expected for each name a number"),
        ({"label_descriptions": ["a"]}, "label_descriptions is a list"),
        ({"global_pool": "median", "model_args": {}}, "global_pool is 'median', expected one of"),
        ({"global_pool": ["avg"], "model_args": {}}, r"global_pool is \['avg'\], expected one of"),
        ({"global_pool": "max"}, "global_pool is 'max', and in model_args 'avg'"),
        ({"global_pool": "catavgmax", "model_args": {}}, "head.fc.weight"),
        ({"model_args": {"act_layer": "relu"}}, "model_args has act_layer='relu', by which no model can be made here"),
        (
            {"model_args": {"inference_mode": True}},
            "has inference_mode False, and .*config.json True",
        ),
        ({"model_args": {"drop_rate": "much"}}, "config.json: .*drop_rate is 'much', expected a number"),
        ({"label_names": {"a": 1, "b": 1}}, "label_names gives one number to two names"),
        ({"num_classes": 10**40}, "num_classes is 1000.*, expected a whole number"),
        ({"model_args": [1]}, "model_args is a list, expected an object"),
        ({"pretrained_cfg": "none"}, "pretrained_cfg is a str, expected an object"),
        ({"architecture": {"a": [1]}}, "config.json: says"),
        ({"architecture": "fastvit_t8\n\x1b[31m" * 9999}, r"config.json: says 'fastvit_t8\\n\\x1b\[31m"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("theirs")
def test_what_contradicts_the_weights_or_is_no_config_is_one_line(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    changed(tmp_path, lambda config: config.update(change))
    if named:
        assert re.search(named, message := failure(tmp_path)), message
    else:
        assert load(tmp_path).pretrained_cfg["label_names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean": [0.5, 0.5]}, "expected three numbers"),
        ({"mean": ["0.5"] * 3}, "expected numbers"),
        ({"mean": [float("nan")] * 3}, "expected three numbers"),
        ({"std": [0, 1, 1]}, "above 0"),
        ({"crop_pct": 2}, "crop=2"),
        ({"crop_pct": "0.9"}, "cannot be followed"),
        ({"crop_mode": "stretch"}, "crop_mode='stretch'"),
        ({"interpolation": "random"}, "interpolation='random'"),
        ({"input_size": [3, 10**9, 10**9]}, "larger than 16384 pixels"),
        ({"input_size": [3, 16, 16]}, "from 32 up"),
        ({"input_size": [3, 96.5, 96]}, "expected .channels, height, width"),
        ({"mean": [10**40] * 3}, "mean or std is .*, expected numbers"),
        ({"interpolation": {}}, "interpolation={}: expected one of"),
        ({"input_size": 96}, "expected .channels, height, width"),
        ({"license": ["mit"]}, "license is .'mit'., expected text"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("theirs")
def test_preprocessing_that_cannot_be_is_one_line_that_names_the_file(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    changed(tmp_path, lambda config: config["pretrained_cfg"].update(change))
    message = failure(tmp_path)
    assert message.startswith(f"{tmp_path}/config.json") and re.search(named, message), message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b"3" * 9999, b'{"a": ' + b" " * 6_000_000]
)
@pytest.mark.usefixtures("theirs")
def test_a_config_that_is_broken_is_one_line_that_names_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert failure(tmp_path).startswith(f"{tmp_path}/config.json: cannot be read as the weights' config")


def test_the_header_goes_first_and_a_config_that_contradicts_it_is_an_error(tmp_path: Path) -> None:
    model = named("fastvit_t8", num_classes=3)
    model.pretrained_cfg |= {"label_names": LABELS, "mean": (0.5, 0.5, 0.5)}
    save(model, tmp_path / "model.safetensors")
    config: dict[str, Any] = {
        "architecture": "fastvit_t8",
        "label_names": LABELS,
        "pretrained_cfg": {"mean": [0.5004] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).pretrained_cfg["mean"] == (0.5, 0.5, 0.5)  # the other is the same, rounded
    for wrong in ({"label_names": list("xyz")}, {"pretrained_cfg": {"mean": [0.4] * 3}}, {"global_pool": "max"}):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        message = failure(tmp_path)
        assert message.startswith("the header of ") and "model.safetensors has" in message and "config.json" in message


def test_what_the_header_leaves_open_the_folder_says(tmp_path: Path) -> None:
    save(named("fastvit_t8", num_classes=3), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "fastvit_t8", "label_names": LABELS}))
    assert load(tmp_path).pretrained_cfg["label_names"] == LABELS


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1], ["1", "2", "0"]], ids=str)
@pytest.mark.parametrize("written", [int, str])
def test_numbers_by_name_alone_name_the_classes(labels: list[str], nested: bool, written: type, tmp_path: Path) -> None:
    numbers = {"label2id": {name: written(index) for index, name in enumerate(labels)}}

    def change(config: dict[str, Any]) -> None:
        config.pop("label_names")
        (config["pretrained_cfg"] if nested else config).update(numbers)

    changed(tmp_path, change)
    assert load(tmp_path).pretrained_cfg["label_names"] == labels


@pytest.mark.usefixtures("theirs")
def test_names_by_number_may_be_under_the_other_key(tmp_path: Path) -> None:
    numbers = {"label2id": {str(index): name for index, name in enumerate(LABELS)}}
    changed(tmp_path, lambda config: (config.pop("label_names"), config.update(numbers)))
    assert load(tmp_path).pretrained_cfg["label_names"] == LABELS


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    "own",
    [
        {"do_pooling": True, "dtype": "float32", "initializer_range": 0.02, "transformers_version": "5.24.0"},
        {"torch_dtype": "float32", "_name_or_path": "mine", "problem_type": None},
        {},
    ],
    ids=lambda own: f"{len(own)} keys",
)
def test_transformers_own_keys_beside_a_model_of_timm_are_not_called_unused(
    own: dict[str, Any], tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        config.pop("pretrained_cfg")
        config.update(own, model_type="timm_wrapper", architectures=["TimmWrapperForImageClassification"])

    changed(tmp_path, change)
    assert load(tmp_path).pretrained_cfg["label_names"] == LABELS  # and no warning, which would be an error


@pytest.mark.usefixtures("theirs")
def test_names_by_number_are_used_and_not_called_unused(tmp_path: Path) -> None:
    numbered = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}
    changed(tmp_path, lambda config: (config.pop("label_names"), config.update(numbered, architectures=None)))
    assert load(tmp_path).pretrained_cfg["label_names"] == LABELS


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("processor", "unused"),
    [
        ({"size": {"height": 64, "width": 96}, "resample": 2}, "size without the image's aspect ratio: its centre"),
        ({"crop_size": 64, "do_resize": False, "do_rescale": False}, "do_resize: False, do_rescale: False"),
        ({"crop_size": 64, "rescale_factor": 1.0}, "rescale_factor: 1.0"),
        ({"crop_size": 64, "rescale_factor": "1/255"}, "rescale_factor: '1/255'"),
    ],
)
def test_what_a_processor_of_another_model_does_is_said_and_not_done(
    processor: dict[str, Any], unused: str, tmp_path: Path
) -> None:
    """As transformers' ViTImageProcessor, which resizes to height and width."""
    (tmp_path / "config.json").unlink()
    written = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3} | processor
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    with pytest.warns(FastViTWarning, match=f"preprocessor_config.json: not used: {unused}"):
        cfg = load(tmp_path).pretrained_cfg
    assert cfg["mean"] == (0.5,) * 3 and cfg["crop_mode"] == "center" and cfg["input_size"][1] == 64


def test_the_header_and_the_folder_call_imagenets_classes_the_same_in_either_form(tmp_path: Path) -> None:
    synsets = ImageNetInfo().label_names()
    for given, beside in ((synsets, synsets), (synsets, imagenet_names()), (imagenet_names(), synsets)):
        model = named("fastvit_t8", num_classes=1000)
        model.pretrained_cfg["label_names"] = given
        save(model, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "fastvit_t8", "label_names": beside}))
        assert load(tmp_path).pretrained_cfg["label_names"] == given
    fastvit.save_pretrained(model, tmp_path / "shared")


@pytest.mark.usefixtures("theirs")
def test_what_is_not_used_is_named_once(tmp_path: Path) -> None:
    changed(tmp_path, lambda config: config.update(calibration=1, temperature=2))
    changed(tmp_path, lambda config: config["model_args"].update(proj_drop_rate=0.5))
    with pytest.warns(
        FastViTWarning, match="not used: calibration, model_args proj_drop_rate=0.5, temperature"
    ) as said:
        load(tmp_path)
    assert len(said) == 1
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.warns(FastViTWarning, match="config.json: not used: model_type 'bert'"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"epochs": 3}')
    with pytest.warns(FastViTWarning, match="config.json: not used: keys epochs"):
        load(tmp_path)


@pytest.mark.usefixtures("theirs")
def test_channels_are_those_of_the_weights_and_that_is_said(tmp_path: Path) -> None:
    changed(tmp_path, lambda config: config["pretrained_cfg"].update(input_size=[4, 96, 96]))
    with pytest.warns(FastViTWarning, match="says 4 channels, and the weights beside it are for 3"):
        assert load(tmp_path).pretrained_cfg["input_size"] == (3, 96, 96)


def test_the_folder_tells_twins_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = replace(SMALL["fastvithd"], preprocess=CONFIGS["fastvit_mci3"].preprocess)
    monkeypatch.setitem(CONFIGS, "fastvit_mci3", twin)
    save(named("fastvithd", num_classes=3), tmp_path / "model.pt", names="timm")
    with pytest.warns(FastViTWarning, match="fits fastvit_mci3 and fastvithd"):
        load(tmp_path)
    for name in ("fastvit_mci3", "fastvithd"):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
        assert load(tmp_path).pretrained_cfg["architecture"] == name
    assert load(tmp_path, variant="fastvit_mci3").pretrained_cfg["architecture"] == "fastvit_mci3"
