"""Preprocess is timm's evaluation transform or LLaVA's padding, bit for bit, and refuses what would fill the memory."""

import dataclasses
import math
import subprocess
import sys

import numpy
import pytest
import torch
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from fastvit import CONFIGS, FastViT
from fastvit.images.io import MAX_PIXELS, ImageError
from fastvit.images.preprocess import MOST_RESIZED, Preprocess


def noise(height: int, width: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = numpy.random.default_rng(height * 10_007 + width).integers(0, 256, shape, dtype=numpy.uint8)
    return Image.fromarray(values).convert(mode)


def timm_transform(preprocess: Preprocess) -> object:
    return create_transform(
        (3, *preprocess.size),
        is_training=False,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=preprocess.crop,
        crop_mode=preprocess.crop_mode,
    )


@pytest.mark.parametrize("crop", [1.0, 0.95, 0.9, 0.875])
@pytest.mark.parametrize("size", [(256, 256), (32, 32), (96, 160), (160, 96)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_equals_timm(size: tuple[int, int], crop: float, interpolation: str, crop_mode: str) -> None:
    preprocess = Preprocess(size=size, crop=crop, interpolation=interpolation, crop_mode=crop_mode)
    for height, width in [(300, 451), (451, 300), (256, 256), (284, 284), (1, 1), (31, 33), (500, 51), (7, 70)]:
        image = noise(height, width)
        assert torch.equal(preprocess(image), timm_transform(preprocess)(image)), (height, width)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    size=st.tuples(st.integers(32, 80), st.integers(32, 80)),
    square=st.booleans(),
    crop=st.floats(0.3, 1),
    crop_mode=st.sampled_from(["center", "squash"]),
    interpolation=st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.1, 1)] * 3),
)
def test_equals_timm_whatever_the_numbers(
    shape: tuple[int, int],
    size: tuple[int, int],
    square: bool,
    crop: float,
    crop_mode: str,
    interpolation: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    size = (size[0], size[0]) if square else size
    preprocess = Preprocess(size=size, crop=crop, crop_mode=crop_mode, interpolation=interpolation, mean=mean, std=std)
    image = noise(*shape)
    assert torch.equal(preprocess(image), timm_transform(preprocess)(image))


@pytest.mark.parametrize("height,width", [(30, 400), (400, 30), (290, 3000), (3000, 290), (3, 300), (300, 3)])
@pytest.mark.parametrize("crop", [1.0, 0.9])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_elongated_images_equal_timm(height: int, width: int, crop: float, size: tuple[int, int]) -> None:
    image, preprocess = noise(height, width), Preprocess(size=size, crop=crop)
    assert torch.equal(preprocess(image), timm_transform(preprocess)(image))


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image is made or resized: the whole of some would be ten gigabytes."""
    monkeypatch.setattr(Image, "new", lambda *_: pytest.fail("made an image"))
    monkeypatch.setattr(Image.Image, "resize", lambda *_, **__: pytest.fail("resized an image"))


def refusal(preprocess: Preprocess, image: Image.Image) -> str:
    with pytest.raises(ImageError) as error:
        preprocess.pixels(image)
    return str(error.value)


@pytest.mark.parametrize(
    ("height", "width", "needed"),
    [(1, 5000, "1420000 x 284"), (5000, 1, "284 x 1420000"), (3, 100_000, "9466666 x 284")],
)
def test_images_too_elongated_to_resize_are_refused_before_it_is_tried(
    height: int, width: int, needed: str, request: pytest.FixtureRequest
) -> None:
    image = Image.new("RGB", (width, height))
    request.getfixturevalue("idle")
    assert refusal(Preprocess(), image) == (
        f"{width} x {height} pixels are too elongated: it would take {needed} to prepare, while 268 million are the "
        "limit; crop it, or make it smaller"
    )


def test_images_are_resized_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.images.preprocess.MOST_RESIZED", 64 * 640)
    preprocess = Preprocess(size=(64, 64), crop=1.0)
    image = noise(10, 100)
    assert torch.equal(preprocess(image), timm_transform(preprocess)(image))
    assert "704 x 64" in refusal(preprocess, noise(10, 110))
    assert bordering()(noise(1, 202)).shape == (3, 64, 64)
    assert "203 x 203" in refusal(bordering(), noise(1, 203))


def test_no_image_that_is_read_and_at_most_twice_as_long_as_wide_is_too_elongated() -> None:
    for ratio in (1, 1.33, 1.5, 2):
        height = math.isqrt(int(MAX_PIXELS / ratio))
        assert (ratio * height) ** 2 <= MOST_RESIZED


# Border


def padded(image: Image.Image, edge: int, interpolation: str = "bicubic") -> torch.Tensor:
    """LLaVA's expand2square, on zeros, and a resize: (3, edge, edge) of 0 to 1."""
    long = max(image.size)
    top, left = (long - image.height) // 2, (long - image.width) // 2
    square = numpy.zeros((long, long, 3), dtype=numpy.uint8)
    square[top : top + image.height, left : left + image.width] = numpy.asarray(image)
    resized = Image.fromarray(square).resize((edge, edge), Image.Resampling[interpolation.upper()])
    return torch.tensor(numpy.asarray(resized)).permute(2, 0, 1) / 255


def bordering(edge: int = 64, interpolation: str = "bicubic") -> Preprocess:
    return Preprocess(
        size=(edge, edge), crop=1.0, crop_mode="border", interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1)
    )


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    edge=st.integers(32, 100),
    interpolation=st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
)
def test_a_border_is_llavas(shape: tuple[int, int], edge: int, interpolation: str) -> None:
    image = noise(*shape)
    assert torch.equal(bordering(edge, interpolation)(image), padded(image, edge, interpolation))


def test_a_border_is_black_before_the_pixels_are_normalised() -> None:
    preprocess = Preprocess(size=(64, 64), crop=1.0, crop_mode="border")
    pixels = preprocess(Image.new("RGB", (200, 100), "white"))  # 16 rows of border, 32 of image, 16 of border
    for channel, (mean, std) in enumerate(zip(preprocess.mean, preprocess.std, strict=True)):
        torch.testing.assert_close(pixels[channel, [0, 12, 51, 63]], torch.full((4, 64), -mean / std))
        torch.testing.assert_close(pixels[channel, [19, 32, 44]], torch.full((3, 64), (1 - mean) / std))


def test_an_odd_row_of_border_is_at_the_bottom_and_an_odd_column_on_the_right() -> None:
    tall, wide = Image.new("RGB", (32, 61), "white"), Image.new("RGB", (61, 32), "white")
    down = bordering(61)(wide)[0, :, 0]
    across = bordering(61)(tall)[0, 0]
    assert down.tolist() == across.tolist() == [0.0] * 14 + [1.0] * 32 + [0.0] * 15


def test_a_square_image_has_no_border() -> None:
    image = noise(100, 100)
    assert torch.equal(bordering()(image), dataclasses.replace(bordering(), crop_mode="center")(image))


@pytest.mark.parametrize(("height", "width"), [(1, 50_000), (50_000, 1), (300, 50_000), (50_000, 300)])
def test_a_border_too_large_to_make_is_refused_before_it_is_tried(
    height: int, width: int, request: pytest.FixtureRequest
) -> None:
    image = Image.new("RGB", (width, height))
    request.getfixturevalue("idle")
    assert "it would take 50000 x 50000 to prepare" in refusal(bordering(), image)


def test_a_border_agrees_with_timms_but_at_the_rim() -> None:
    """Where the image's edges fall on pixels of the result: timm resizes it first and puts the border around."""
    image = noise(128, 256)
    theirs = create_transform(
        (3, 64, 64), is_training=False, interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1), crop_pct=1.0,
        crop_mode="border",
    )(image)  # fmt: skip
    ours = bordering()(image)
    assert torch.equal(ours[:, 18:46], theirs[:, 18:46])
    assert not ours[:, :14].any() and not ours[:, 50:].any()
    assert not theirs[:, :16].any() and not theirs[:, 48:].any()


def test_the_first_numbers_by_hand() -> None:
    """255 is (1 - 0.485) / 0.229 in red."""
    white = Preprocess()(Image.new("RGB", (300, 200), "white"))
    assert white.dtype == torch.float32 and white.is_contiguous()
    for channel, expected in enumerate([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]):
        assert torch.allclose(white[channel], torch.tensor(expected)), channel


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_modes_that_pillow_converts_well_are_converted_by_it(mode: str) -> None:
    image = noise(60, 40).convert(mode)
    assert torch.equal(Preprocess(size=(32, 32))(image), Preprocess(size=(32, 32))(image.convert("RGB")))


def test_a_16_bit_grey_is_the_8_bit_grey_times_257() -> None:
    grey = numpy.asarray(noise(60, 40, "L"))
    deep = Image.fromarray(grey.astype(numpy.uint16) * 257)
    assert torch.equal(Preprocess(size=(32, 32))(deep), Preprocess(size=(32, 32))(Image.fromarray(grey)))


@pytest.mark.parametrize("mean", [(0.485, 0.456, 0.406), (0.1, 0.5, 0.9)])
def test_a_batch_of_bytes_is_normalised_to_the_same_bits_as_timm_does_each(mean: tuple[float, float, float]) -> None:
    preprocess = Preprocess(size=(33, 64), crop=1.0, mean=mean)
    images = [noise(40, 70), noise(300, 200), noise(50, 50)]
    pixels = torch.stack([preprocess.pixels(image) for image in images])
    assert pixels.shape == (3, 33, 64, 3) and pixels.dtype == torch.uint8
    before = pixels.clone()
    given = preprocess.normalized(pixels)
    assert torch.equal(given, torch.stack([timm_transform(preprocess)(image) for image in images]))
    assert torch.equal(pixels, before) and given.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (64, 64), (127, 129), (2**14, 3)])
def test_enough_is_some_pixels_and_no_more_than_there_are(crop_mode: str, size: tuple[int, int]) -> None:
    width, height = Preprocess(size=(64, 64), crop=1.0, crop_mode=crop_mode).enough(size)
    assert 1 <= width <= size[0] and 1 <= height <= size[1]
    assert (width, height) == size or (max if crop_mode == "border" else min)(width, height) == 128


def test_the_image_itself_is_left_alone() -> None:
    image = noise(40, 60)
    before = image.tobytes()
    Preprocess(size=(32, 32))(image)
    assert image.tobytes() == before and image.size == (60, 40)


@pytest.mark.parametrize("name", ["fastvit_t8.apple_in1k", "fastvit_ma36.apple_in1k", "fastvit_mci2.apple_mclip"])
def test_reads_timms_cfg_and_gives_it_back(name: str) -> None:
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name).to_dict()
    found = Preprocess.from_cfg(cfg).to_cfg()
    assert len(found) == 6 and found == {key: cfg[key] for key in found}


def test_a_cfg_survives_json() -> None:
    preprocess = Preprocess(size=(96, 160), crop=0.95, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    cfg = {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.to_cfg().items()}
    assert Preprocess.from_cfg(cfg) == preprocess
    assert Preprocess.from_cfg({}) == Preprocess()
    assert bordering().to_cfg()["crop_mode"] == "border" and Preprocess.from_cfg(bordering().to_cfg()) == bordering()


def test_a_center_crop_replaces_a_border_in_a_cfg() -> None:
    """As when a FastViTHD is trained on, with a recipe's own preprocessing."""
    assert Preprocess.from_cfg(bordering().to_cfg() | Preprocess().to_cfg()) == Preprocess()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_has_the_preprocessing_of_its_weights(name: str) -> None:
    with torch.device("meta"):
        model = FastViT(dataclasses.replace(CONFIGS[name], depths=(1,) * len(CONFIGS[name].depths), width=32))
    assert model.preprocess == CONFIGS[name].preprocess
    model.pretrained_cfg |= {"input_size": [3, 96, 96], "crop_pct": 1.0}
    assert model.preprocess == dataclasses.replace(CONFIGS[name].preprocess, size=(96, 96), crop=1.0)


def test_a_model_of_other_channels_has_none() -> None:
    config = dataclasses.replace(CONFIGS["fastvit_t8"], depths=(1, 1, 1, 1), width=8)
    with pytest.raises(ValueError, match="red, green and blue"):
        _ = FastViT(config, in_chans=4).preprocess


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (31, 64)},
        {"size": (64,)},
        {"size": (64.0, 64)},
        {"size": (0, 0)},
        {"crop": 0},
        {"crop": 1.01},
        {"crop": math.nan},
        {"crop_mode": "stretch"},
        {"crop_mode": None},
        {"interpolation": "random"},
        {"interpolation": "BICUBIC"},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, math.nan)},
        {"std": (0.2, 0.2, 0)},
        {"std": (0.2, 0.2, math.inf)},
        {"std": (0.2,)},
    ],
    ids=str,
)
def test_nonsense_is_refused_and_quoted(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}=.*: expected ") as caught:
        Preprocess(**wrong)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"crop": 0.9}, {"crop": 0.999, "size": (64, 64)}, {"crop": 1.0, "size": (64, 96)}], ids=str
)
def test_a_border_keeps_the_whole_image_on_a_square(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^(crop|size)=.*: expected .* with crop_mode='border'"):
        Preprocess(crop_mode="border", **wrong)


@pytest.mark.parametrize("cfg", [{"input_size": (4, 64, 64)}, {"input_size": (3, 64)}, {"crop_mode": "border"}])
def test_a_cfg_that_asks_for_something_else_is_refused(cfg: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Preprocess.from_cfg(cfg)


def test_a_cfg_with_an_unknown_crop_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^crop_mode='stretch': expected 'center', 'squash' or 'border'$"):
        Preprocess.from_cfg({"crop_mode": "stretch"})


def test_it_is_frozen_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Preprocess().crop = 1.0  # type: ignore[misc]
    assert len({Preprocess(), Preprocess(), Preprocess(crop=1.0)}) == 2


@pytest.mark.parametrize("module", ["fastvit.images.preprocess", "fastvit.data.resolve"])
def test_what_commands_begin_with_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'torchvision', 'timm'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
