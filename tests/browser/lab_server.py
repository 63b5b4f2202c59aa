"""JupyterLab on this machine with settings of its own, and the browser to look at it with."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240
"""For JupyterLab or a page to come up, on a machine with other work to do."""
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
CONFIG = {
    "ServerApp": {"ip": "127.0.0.1", "open_browser": False, "allow_root": True},
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "extension_manager": "readonly",
        "expose_app_in_browser": True,
    },
}
# All cells are in the page at once, so that one look sees them all.
TRACKER = {"windowingMode": "none"}
NOTICES = {"checkForUpdates": False, "fetchNews": "false", "doNotDisturbMode": False}


class NoChromiumError(RuntimeError):
    """No browser to look with; a skip would hide the gap."""


def find_chromium() -> str:
    """The browser named by `SFTLAB_CHROMIUM`, or the first one on PATH.

    Raises NoChromiumError with what to install.
    """
    named = os.environ.get("SFTLAB_CHROMIUM")
    found = [
        path for name in ([named] if named else CHROMIUM_NAMES) if (path := shutil.which(name))
    ]
    if not found:
        looked = f"SFTLAB_CHROMIUM={named!r} is no program" if named else "no Chromium on PATH"
        raise NoChromiumError(
            f"{looked}: install it (Debian and Ubuntu: apt-get install chromium), or put the path"
            " of a Chromium or Chrome into SFTLAB_CHROMIUM; to leave these tests out:"
            ' pytest -m "not browser"'
        )
    return found[0]


@dataclass(kw_only=True)
class Lab:
    """A running JupyterLab."""

    folder: Path
    """Root of its file browser, where the copies of the notebooks are."""
    address: str = ""
    """http://127.0.0.1:port, without a slash at the end."""
    token: str = field(default_factory=lambda: os.urandom(24).hex())
    """Its password."""

    def ask(self, path: str, *, method: str = "GET") -> Any:
        """The JSON that the server's REST interface answers, None when it answers nothing."""
        request = urllib.request.Request(
            f"{self.address}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            body = reply.read()
        return json.loads(body) if body else None


def start_lab(folder: Path) -> tuple[Lab, subprocess.Popen]:
    """Start JupyterLab over `folder`/work with settings of its own, and wait until it answers.

    Raises RuntimeError with the server's log when it doesn't come up in START_SECONDS.
    """
    lab = Lab(folder=folder / "work")
    places = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "IPYTHONDIR": folder / "ipython",
    }
    for place in (*places.values(), lab.folder):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "config/jupyter_lab_config.json").write_text(json.dumps(CONFIG))
    for plugin, settings in (
        ("notebook-extension/tracker", TRACKER),
        ("apputils-extension/notification", NOTICES),
    ):
        file = folder / f"settings/@jupyterlab/{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    environment = os.environ | {name: str(place) for name, place in places.items()}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "JUPYTER_TOKEN": lab.token}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab.address = f"http://127.0.0.1:{port}"
    log = folder / "jupyterlab.log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}",
             "--ServerApp.port_retries=0", f"--ServerApp.root_dir={lab.folder}"],
            cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            lab.ask("status")
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return lab, server
    server.kill()
    raise RuntimeError(f"JupyterLab did not start; its log:\n{log.read_text()[-4000:]}")


def stop_lab(lab: Lab, server: subprocess.Popen) -> None:
    """Stop the server and its kernels, by its own interface so that it works on Windows too.

    A server whose page was closed while it still loaded has been seen to answer the request and
    stay: then it is made to stop.
    """
    for stop in (lambda: lab.ask("shutdown", method="POST"), server.terminate, server.kill):
        try:
            stop()
            server.wait(10)
            return
        except (OSError, subprocess.TimeoutExpired):
            continue
