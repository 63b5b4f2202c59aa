"""`sftlab ship`, `checklist` and `serve`: a release that passed the gate, what else is to be done,
and OpenAI's chat API for programs."""

import json
import os
import shlex
import sys
from ipaddress import ip_address
from pathlib import Path

import typer

from sftlab.cli.app import command, new_file

KEY = "SFTLAB_API_KEY"
MARKS = {True: "ok", False: "FAILED", None: "-"}


@command
def ship(
    run: Path,
    out: Path,
    to: str,
    type_: str | None = None,
    questions: Path | None = None,
    changed: bool = False,
) -> None:
    from sftlab.paths import check_writable
    from sftlab.ship import GateError, release
    from sftlab.train import writing

    check_writable(out)
    try:
        with writing(out):
            made = release(run, out, to=to, type=type_, questions=questions, verify=not changed)
    except GateError as refused:
        _print_gate(refused.gate)
        print(f"\n{refused}\nnothing was written")
        raise typer.Exit(1) from None
    _print_gate(made.gate)
    print(f"\n{made.gate.verdict}: {out}")
    print("files    ", *sorted(file.name for file in out.iterdir()))
    for program, line in made.serve.items():
        print(f"{program:13}{line}")


def _print_gate(gate) -> None:
    rows = gate.table[["check", "passed", "measured", "bound"]].values.tolist()
    for check, passed, measured, bound in rows:
        print(f"{check:11}{MARKS[passed]:8}{measured} (allowed: {bound})")


@command
def checklist(run: Path, release: Path | None = None, out: Path | None = None) -> None:
    from sftlab.paths import write_atomically
    from sftlab.show import run_checklist

    file = new_file(out) if out else run / "checklist.html"
    page = run_checklist(run, release=release)
    write_atomically(file, page.html)
    for part, item, state, evidence in page.boxes:
        print(f"{part:12}{item:36}{state:14}{evidence}")
    print(f"page      {file}")


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
