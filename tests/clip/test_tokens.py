"""Texts become the tokens that every MobileCLIP was trained with."""

import json
import subprocess
import sys

import pytest
from helpers.goldens import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip import get_tokenizer

import fastvit
from fastvit import FastViTWarning
from fastvit.clip import tokenize

CASES = json.loads((DATA / "clip" / "tokenizer.json").read_text())["cases"]


@pytest.mark.filterwarnings("ignore:the text:fastvit.FastViTWarning")
def test_difficult_texts_become_the_published_tokens() -> None:
    assert len(CASES) == 33
    for case in CASES:
        tokens = tokenize([case["text"]])[0].tolist()
        ids = case["ids"]
        assert tokens[: len(ids)] == ids and len(tokens) == 77, case["text"]
        assert tokens.index(49407) == case["eot"]


@pytest.mark.filterwarnings("ignore:the text:fastvit.FastViTWarning")
@settings(max_examples=100)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_texts_become_what_open_clip_makes_of_them(texts: list[str]) -> None:
    assert tokenize(texts).equal(get_tokenizer("MobileCLIP2-S0")(texts))


def test_texts_that_are_too_long_are_cut_with_one_warning_or_refused() -> None:
    long = "word " * 90
    with pytest.warns(FastViTWarning, match=r"has 90 tokens, of which 75 are read, and 1 more are too long") as said:
        tokens = tokenize(["a cat", long, long])
    assert len(said) == 1 and tokens[1, 76] == 49407 and tokens[1, 75] != 0
    with pytest.raises(ValueError, match=r"has 90 tokens, of which 75 are read: shorten it"):
        tokenize([long], strict=True)


@pytest.mark.parametrize(
    ("texts", "said"), [("a cat", "expected a list"), ([], "no texts"), ([5], "expected a str"), (5, "expected a list")]
)
def test_what_is_no_list_of_texts_is_refused(texts: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tokenize(texts)  # type: ignore[arg-type]


def test_without_open_clip_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['open_clip'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "import fastvit.utils.extras as extras\n"
        "extras.find_spec = lambda name: None if name == 'open_clip' else found(name)\n"
        "import fastvit\n"
        "try: fastvit.clip.tokenize(['a'])\n"
        "except ImportError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == 'encoding texts needs open_clip; run: pip install "fastvit[clip]"\n', ran.stderr


def test_importing_and_loading_need_no_open_clip() -> None:
    code = "import fastvit, sys; fastvit.clip.load, fastvit.clip.TextEncoder; print('open_clip' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr
    assert fastvit.clip.list_models()[0] == "mobileclip_s0"
