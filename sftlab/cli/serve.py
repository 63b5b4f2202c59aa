"""`sftlab serve`: a saved run behind OpenAI's chat API."""

import json
import os
import shlex
import sys
from ipaddress import ip_address
from pathlib import Path

from sftlab.cli.app import command

KEY = "SFTLAB_API_KEY"


@command
def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    queue: int = 32,
    api_key: bool = False,
    changed: bool = False,
) -> None:
    from sftlab.ship import ServeError, address_of, contract_hash, create_app, listen, make_server
    from sftlab.train import load_run

    if files := sorted(run.glob("*.gguf")):
        line = f"llama-server --model {shlex.quote(str(files[0]))} --jinja"
        raise ServeError(f"{files[0]} is for llama.cpp or Ollama: {line}")
    key = os.environ.get(KEY) if api_key else None
    if api_key and not key:
        raise ServeError(f"--api-key takes the key from the environment: set {KEY}")
    opened = load_run(run, verify=not changed)
    name = name or run.resolve().name
    how = {"name": name, "contract": contract_hash(run), "api_key": key, "most_waiting": queue}
    app = create_app(opened, **how)
    with listen(host, port) as listening:
        address = address_of(listening)
        if not ip_address(listening.getsockname()[0]).is_loopback:
            who = "with the key" if key else "without a key (see --api-key)"
            said = f"{host} accepts other machines, {who}, and nothing is encrypted: put a proxy"
            print(f"sftlab: {said} with TLS in front of it", file=sys.stderr)
        asked = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
        header = f" -H 'Authorization: Bearer '\"${KEY}\"" if key else ""
        print(
            f"{name} answers at {address}; Ctrl-C ends it. Try: curl {address}/chat/completions"
            f"{header} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(asked))}",
            flush=True,
        )
        make_server(app).run(sockets=[listening])
