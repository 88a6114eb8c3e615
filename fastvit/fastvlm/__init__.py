"""FastVLM (arXiv:2412.13303): our encoder as the vision tower of transformers' FastVlmForConditionalGeneration.

    model = fastvlm.load("apple/FastVLM-0.5B")  # or a folder
    processor = fastvlm.Processor(model, "apple/FastVLM-0.5B")
    inputs = processor(image, "What is this?")
    generated = model.generate(**inputs, max_new_tokens=50)
    print(processor.decode(generated, inputs)[0])

Needs transformers 5, which is imported when one of these names is first used. Importing this registers nothing;
`load`, `join` and `register` do.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

from ..utils.extras import MissingExtraError

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A MissingExtraError where transformers is missing or too old."""
    if name in __all__:
        try:
            found = version("transformers")
        except PackageNotFoundError:
            found = "none"
        major = found.split(".")[0]
        if not major.isdecimal() or int(major) < 5:
            needed = f"fastvit.fastvlm needs transformers 5, found {found}"
            raise MissingExtraError(f'{needed}; run: pip install "fastvit[vlm]"')
    return _get(name)
