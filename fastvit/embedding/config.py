"""The options of `fastvit.embed`."""

from dataclasses import dataclass

from ..utils.numbers import check_whole
from ..utils.text import either

OUTPUTS = ("features", "head")
DTYPES = ("float32", "float16")
MOST_ROWS = 10**6


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What is to be computed, and how; checked as it is made. These are the options of `fastvit embed`.

    Attributes:
        split: Embed this split of data that has some: train, test ...
        outputs: What to write: features, pooled as the classifier reads them, or head, its logits or its embedding.
            [default: head for MobileCLIP's embeddings, else features]
        normalize: Scale each embedding to unit length, for cosine similarity.
        dtype: Type of the numbers in the files: float32 or float16.
        rows: Images in each file; a kill loses the work on one file at most.
        max_unreadable: Images that may be left out, and listed, since they cannot be read.
        batch_size: Images computed at a time.
        device: Where to compute: cpu, cuda, mps ... [default: the fastest one; of a model object, where it is]
        engine: What runs the model: torch, compile, onnxruntime, openvino, or auto, the fastest one here.
        precision: Precision of the arithmetic: float32, bfloat16 or float16; not every engine has every one.
        fast_decoding: Decode large JPEGs at a part of their size: much faster, with slightly different results.

    Raises:
        ValueError: an option that is out of its range.

    Example:
        >>> from fastvit.embedding import EmbedConfig
        >>> EmbedConfig(normalize=True).dtype
        'float32'
        >>> EmbedConfig(dtype="int8")
        Traceback (most recent call last):
        ValueError: dtype is 'int8', expected float32 or float16
    """

    split: str = ""
    outputs: str = ""
    normalize: bool = False
    dtype: str = "float32"
    rows: int = 10_000
    max_unreadable: int = 0
    batch_size: int = 64
    device: str | None = None
    engine: str = "torch"
    precision: str = "float32"
    fast_decoding: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("outputs", self.outputs, ("", *OUTPUTS)), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected {either(known)}")
        check_whole(1, MOST_ROWS, rows=self.rows)
        check_whole(1, batch_size=self.batch_size)
        check_whole(0, max_unreadable=self.max_unreadable)
        if self.precision == "int8":
            raise ValueError("precision int8 changes features too much; use bfloat16, float16 or float32")
