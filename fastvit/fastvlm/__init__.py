"""FastVLM (arXiv:2412.13303): our encoder as the eye of transformers' FastVlmForConditionalGeneration.

    model = fastvlm.load("apple/FastVLM-0.5B")  # or a folder
    processor = fastvlm.Processor(model, "apple/FastVLM-0.5B")
    inputs = processor(image, "What is this?")
    answer = model.generate(**inputs, max_new_tokens=50)
    print(processor.decode(answer, inputs)[0])

Needs transformers 5. Importing this registers nothing; `load`, `join` and `register` do.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    found = version("transformers")
except PackageNotFoundError:
    found = "none"
if not found.split(".")[0].isdecimal() or int(found.split(".")[0]) < 5:
    raise ImportError(f'fastvit.fastvlm needs transformers 5, found {found}; run: pip install "fastvit[vlm]"')

from .processor import Processor
from .reading import load
from .tower import Tower, TowerConfig, join, register

__all__ = ["Processor", "Tower", "TowerConfig", "join", "load", "register"]
