"""Asking llama.cpp itself whether it can run a file, in a process that may die of the answer.

llama.cpp knows more architectures than any list here, and aborts on some files. So the question is put to a
child process, `python -m nightshift.packages.llama_check FILE`, which loads the model (mapped), tokenises
a few texts and prints the ids as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from nightshift.protocol.errors import IncompatibleError

PROBES: Final = (
    "Once upon a time, there was a lamp.",
    "Turn on  the 2 kitchen lights at 17:45!\n\nIt's \u201cwarm\u201d, isn't it?",
    "Größe, 東京, naïve café, привет; 3.14159 e-mail@host",
    "\tdef f(x):\n\t\treturn x**2  # ½ 🙂",
)
"""Texts whose tokens are compared: words, spaces, numbers, other scripts, code."""

_WITHIN_S = 600.0  # a large file from an SD card
_INSTALL = "pip install 'nightshift[llama]'"


def is_installed() -> bool:
    """Whether llama-cpp-python can be imported, without importing it."""
    return importlib.util.find_spec("llama_cpp") is not None


def token_ids(path: Path) -> list[list[int]]:
    """Load a file in llama.cpp and return the tokens of each of `PROBES`, without any special token.

    Raises:
        IncompatibleError: llama-cpp-python is not installed, or llama.cpp refuses the file or dies of it.
    """
    if not is_installed():
        raise IncompatibleError(f"{path}: only llama.cpp could run this file, and it is not installed: {_INSTALL}")
    command = [sys.executable, "-m", "nightshift.packages.llama_check", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)  # noqa: S603 - this module
    except subprocess.TimeoutExpired:
        raise IncompatibleError(f"{path}: llama.cpp did not load this file within {_WITHIN_S:.0f} s") from None
    if done.returncode != 0:
        # llama.cpp writes the reason last.
        said = next((line for line in reversed(done.stderr.splitlines()) if "error" in line.lower()), "")
        ended = f"died of signal {-done.returncode}" if done.returncode < 0 else "refuses this file"
        raise IncompatibleError(f"{path}: llama.cpp {ended}{': ' if said else ''}{said[:200]}")
    ids: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return ids


def _main(path: str) -> int:
    import ctypes

    import llama_cpp

    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    settings.use_mmap = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
    if not model:
        return 1
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    ids = []
    for text in PROBES:
        encoded = text.encode()
        room = 8 * len(encoded) + 16
        tokens = (llama_cpp.llama_token * room)()
        # no special tokens added, those in the text recognised
        flags = (False, True)
        count = llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), tokens, ctypes.c_int32(room), *flags)
        ids.append(list(tokens[: max(count, 0)]))
    print(json.dumps(ids))  # noqa: T201 - what the parent process reads
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
