"""Every FastViT, as a row of a table that says only what varies, and how large it is."""

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any, NamedTuple

from ..images.preprocess import Preprocess

_imagenet = Preprocess()
CUSTOM = "custom"  # what a Config that is in no table is called
MOST_STAGES = 16
LARGEST = 3.4e38  # that float32 has
HEAD_CHANNELS = 32  # of an attention's head
SQUEEZED = 16  # the final convolution's channels for one of its squeeze-excite


@dataclass(unsafe_hash=True, kw_only=True)
class Config:
    """What distinguishes one FastViT encoder from another; its fields cannot be changed.

    Other attributes may be set, as transformers' Trainer does on any model's `config`; here they mean nothing.

    Example:
        >>> from dataclasses import replace
        >>> import fastvit
        >>> narrow = replace(fastvit.CONFIGS["fastvit_t8"], width=16, num_classes=10)
        >>> narrow.widths, sum(weight.numel() for weight in fastvit.FastViT(narrow).parameters())
        ((16, 32, 64, 128), 407866)
    """

    depths: tuple[int, ...]  # blocks in each stage; a list becomes a tuple
    width: int  # channels of the first stage; each later stage doubles them
    mlp_ratio: int = 4  # hidden channels of a block's MLP, in multiples of its width
    attention_stages: int = 0  # how many of the last stages mix tokens by attention; the others by RepMixer
    squeezed_stages: int = 0  # how many of the last downsamplings squeeze and excite
    downsample_gelu: bool = False  # GELU after the 7x7 convolution; the first models lost it to a bug
    stem_scale: bool = True  # 1x1 branches beside the stem's 3x3
    attention_norm: str = "batch"  # "batch" or "layer"
    layer_scale: float = 1e-5  # initial value
    num_classes: int = 1000  # or channels of the embedding
    embeds: bool = False  # the head gives an embedding that images share with texts, rather than a score for each class
    preprocess: Preprocess = _imagenet

    def __post_init__(self) -> None:
        if isinstance(self.depths, list):
            object.__setattr__(self, "depths", tuple(self.depths))
        stages = len(self.depths) if isinstance(self.depths, tuple) else 0
        if not 1 <= stages <= MOST_STAGES or not all(_is_whole(depth, 1) for depth in self.depths):
            raise ValueError(f"depths is {self.depths!r}, expected a tuple of 1 to {MOST_STAGES} whole numbers above 0")
        lowest = {"width": 1, "mlp_ratio": 1, "attention_stages": 0, "squeezed_stages": 0, "num_classes": 0}
        for name, low in lowest.items():
            if not _is_whole(getattr(self, name), low):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a whole number from {low} up")
        if max(self.attention_stages, self.squeezed_stages) > stages:
            many = f"attention_stages is {self.attention_stages} and squeezed_stages {self.squeezed_stages}"
            raise ValueError(f"{many}, expected at most {stages}, as many as depths has")
        if self.attention_stages and self.widths[-self.attention_stages] % HEAD_CHANNELS:
            width = self.widths[-self.attention_stages]
            raise ValueError(
                f"width is {self.width}, so that a stage of {width} channels attends: expected a multiple of "
                f"{HEAD_CHANNELS}, the channels of a head"
            )
        if self.num_features < SQUEEZED:
            least = -(-SQUEEZED // 2**stages)
            raise ValueError(f"width is {self.width}, expected at least {least} for {stages} stages")
        if self.attention_norm not in ("batch", "layer"):
            raise ValueError(f"attention_norm is {self.attention_norm!r}, expected 'batch' or 'layer'")
        number = isinstance(self.layer_scale, int | float) and not isinstance(self.layer_scale, bool)
        if not number or not abs(self.layer_scale) <= LARGEST:  # also refuses nan
            raise ValueError(f"layer_scale is {self.layer_scale!r}, expected a finite number")
        for name in ("downsample_gelu", "stem_scale", "embeds"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected True or False")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) and name in self.__dataclass_fields__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}: make another with dataclasses.replace")
        object.__setattr__(self, name, value)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Config":
        """What `to_row` gives -> Config.

        Raises:
            ValueError: a key or a value that no Config has.
        """
        unknown = row.keys() - {field.name for field in fields(cls)}
        if unknown or not {"depths", "width"} <= row.keys():
            raise ValueError(f"a config of {', '.join(map(repr, row))}, expected the fields of fastvit.Config")
        values = dict(row) | {"depths": tuple(row["depths"])}
        if "preprocess" in row:
            values["preprocess"] = Preprocess.from_cfg(row["preprocess"])
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """Config -> what JSON can hold, for `from_row`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"depths": list(self.depths), "preprocess": self.preprocess.to_cfg()}

    to_dict = to_row  # by transformers' name, for those of its callbacks that log a model's config

    def to_json_string(self) -> str:
        """The same as JSON, for TensorBoard's callback."""
        return json.dumps(self.to_row(), indent=2)

    @property
    def name(self) -> str:
        """What it is called in `CONFIGS`; "custom" if it is not there."""
        return next((name for name, config in CONFIGS.items() if config == self), CUSTOM)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def num_features(self) -> int:
        """Channels of the final convolution's output, which the head reads."""
        return 2 * self.widths[-1]


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= 10**6


def own_cfg(config: Config, num_classes: int | None = None, in_chans: int = 3) -> dict[str, Any]:
    """What timm's tools read of a model: preprocessing, and where its first and last layers are."""
    size = config.preprocess.size
    reduction = 2 ** (1 + len(config.depths))
    branches = ("main", "small") if config.stem_scale else ("main",)
    return {
        "architecture": config.name,
        **config.preprocess.to_cfg(),
        "input_size": (in_chans, *size),
        "pool_size": tuple(-(-edge // reduction) for edge in size),
        "num_classes": config.num_classes if num_classes is None else num_classes,
        "label_names": None,
        "license": None,
        "first_conv": tuple(f"stem.0.conv.{branch}.conv" for branch in branches),
        "classifier": "head.fc",
    }


# FastViT: table 2 of arXiv:2303.14189. The two largest start with a smaller layer scale and are evaluated on a larger
# crop: ml-fastvit, models/fastvit.py.
_sa12 = Config(depths=(2, 2, 6, 2), width=64, attention_stages=1)
_sa36 = replace(_sa12, depths=(6, 6, 18, 6), layer_scale=1e-6, preprocess=replace(_imagenet, crop=0.95))

# The image encoders of MobileCLIP, arXiv:2311.17049 (mci0 to mci2, plain [0, 1] pixels), and of MobileCLIP2,
# arXiv:2508.20691 (mci3 and mci4, normalised as OpenAI's CLIP).
_plain = Preprocess(crop=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_clip = replace(_plain, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
_mci0 = Config(
    depths=(2, 6, 10, 2),
    width=64,
    mlp_ratio=3,
    attention_stages=1,
    squeezed_stages=2,
    downsample_gelu=True,
    num_classes=512,
    embeds=True,
    preprocess=_plain,
)
_mci3 = Config(
    depths=(2, 12, 24, 4, 2),
    width=96,
    attention_stages=2,
    downsample_gelu=True,
    stem_scale=False,
    attention_norm="layer",
    num_classes=768,
    embeds=True,
    preprocess=_clip,
)

# FastVLM's encoder, arXiv:2412.13303: the model of mci3, for larger images and plain pixels. Apple's code pads to a
# black square (llava/mm_utils.py of ml-fastvlm); the conversion for transformers cuts out the centre instead.
_bordered = replace(_plain, size=(1024, 1024), crop_mode="border", interpolation="bicubic")

CONFIGS: dict[str, Config] = {
    "fastvit_t8": Config(depths=(2, 2, 4, 2), width=48, mlp_ratio=3),
    "fastvit_t12": Config(depths=(2, 2, 6, 2), width=64, mlp_ratio=3),
    "fastvit_s12": Config(depths=(2, 2, 6, 2), width=64),
    "fastvit_sa12": _sa12,
    "fastvit_sa24": replace(_sa12, depths=(4, 4, 12, 4)),
    "fastvit_sa36": _sa36,
    "fastvit_ma36": replace(_sa36, width=76),
    "fastvit_mci0": _mci0,
    "fastvit_mci1": replace(_mci0, depths=(4, 12, 20, 4)),
    "fastvit_mci2": replace(_mci0, depths=(4, 12, 24, 4), width=80),
    "fastvit_mci3": _mci3,
    "fastvit_mci4": replace(_mci3, depths=(2, 12, 24, 4, 4), width=128),
    "fastvithd": replace(_mci3, preprocess=_bordered),
}


class Size(NamedTuple):
    """Counts of a variant with its own head, made once, as counting takes seconds and needs torch.

    `tests/models/test_sizes.py` counts again.
    """

    parameters: int  # unfused
    fused_parameters: int
    fused_multiply_adds: int  # of one image of the variant's own size


SIZES: dict[str, Size] = {
    "fastvit_t8": Size(4_026_232, 3_992_392, 685_160_448),
    "fastvit_t12": Size(7_553_704, 7_502_952, 1_390_944_256),
    "fastvit_s12": Size(9_473_576, 9_422_824, 1_793_597_440),
    "fastvit_sa12": Size(11_580_968, 11_539_432, 1_937_219_584),
    "fastvit_sa24": Size(21_554_216, 21_489_512, 3_762_069_504),
    "fastvit_sa36": Size(31_527_464, 31_439_592, 5_586_919_424),
    "fastvit_ma36": Size(44_068_004, 43_963_656, 7_814_930_432),
    "fastvit_mci0": Size(11_406_976, 11_348_544, 2_385_149_952),
    "fastvit_mci1": Size(21_541_632, 21_443_136, 4_658_266_112),
    "fastvit_mci2": Size(35_815_232, 35_678_032, 7_834_224_640),
    "fastvit_mci3": Size(125_235_648, 125_038_560, 14_812_004_352),
    "fastvit_mci4": Size(321_784_832, 321_513_856, 27_757_903_872),
    "fastvithd": Size(125_235_648, 125_038_560, 243_356_270_592),
}
