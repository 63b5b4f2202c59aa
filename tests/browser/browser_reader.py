"""A person at the screen: runs a notebook in JupyterLab, looks, and says what is wrong with it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from lab_server import START_SECONDS, Lab

RUN_SECONDS = 1800
"""For a whole lesson, cold, on a machine with other work to do."""
WIDGET = "application/vnd.jupyter.widget-view+json"
STDERR = "application/vnd.jupyter.stderr"
# Words of trouble as Python and its libraries write them. "Error bars" are a figure's.
TROUBLE = re.compile(
    r"Traceback|\w+(?:Error|Warning|Exception)\b|\b(?:Warning|WARNING|ERROR|Error(?! bars?))\b"
    r"|\b(?:warning|error):|Error (?:displaying|creating) widget|Loading widget"
)


def complaints(seen: dict[str, Any]) -> list[str]:
    """What is wrong in `seen`, the answer of `Reader.run`: by cell, or by part of the screen."""
    found = [f"page: {seen['late']}"] if seen["late"] else []
    found += [f"dialog: {text}" for text in seen["dialogs"]]
    found += [f"notice: {text}" for text in seen["toasts"]]
    found += [f"log: {text.strip()[-500:]}" for text in seen["hidden"]]
    found += [f"network: asks for {address}" for address in dict.fromkeys(seen["strangers"])]
    for cell in seen["cells"]:
        found += [f"cell {cell['index']}: {what}" for what in _in_cell(cell)]
    return found


def _in_cell(cell: dict[str, Any]) -> list[str]:
    found = []
    if cell["code"] and cell["source"].strip() and (cell["count"] is None or cell["waiting"]):
        found.append("was not run to its end")
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            found.append(f"raised {output['ename']}: {output['evalue'][:300]}")
    if STDERR in cell["mimes"]:
        found.append("writes to stderr")
    if trouble := TROUBLE.search(cell["text"]):
        around = cell["text"][max(0, trouble.start() - 80) : trouble.end() + 120]
        found.append(f"shows the word {trouble[0]!r}: ...{around.strip()}...")
    # A bar that has removed itself leaves its output, and in it nothing at all.
    asked = any(WIDGET in output.get("data", {}) for output in cell["outputs"])
    if asked and not cell["widgets"] and cell["text"].strip():
        found.append("shows a widget as plain text")
    for picture in cell["pictures"]:
        if not picture["width"] or not picture["shown"] or picture["blank"]:
            found.append(f"has an empty picture: {picture}")
    if cell["badMath"]:
        found.append("has a formula that does not render")
    return found


class Reader:
    """A person at the screen: opens a notebook, runs all of it, touches widgets, looks."""

    def __init__(self, lab: Lab, browser: Any) -> None:
        self.lab = lab
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.context.add_init_script(path=Path(__file__).with_name("look.js"))
        self.context.route("**/*", self._keep_inside)
        self.strangers: list[str] = []
        self.page: Any = None

    def _keep_inside(self, route: Any) -> None:
        address = route.request.url
        if address.startswith((self.lab.address, "data:", "blob:")):
            route.continue_()
        else:
            self.strangers.append(address)
            route.abort()

    def _wait(self, what: str, seconds: int) -> None:
        self.page.wait_for_function(
            f"() => window.lesson.{what}()", timeout=seconds * 1000, polling=250
        )

    def run(self, name: str) -> dict[str, Any]:
        """Run notebook `name` of the lab's folder and save it; what is then on the screen.

        A wait that ends without its event is reported under "late".
        """
        from playwright.sync_api import TimeoutError as Late

        self.close()
        self.strangers.clear()
        shutil.rmtree(self.lab.records, ignore_errors=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(START_SECONDS * 1000)
        late = None
        try:
            self._run_all(name)
            self.page.evaluate("() => window.lesson.save()")
            self._touch_widgets()
        except Late as error:
            late = str(error).splitlines()[0]
        seen = self.page.evaluate("() => window.lesson.look()")
        return seen | {"name": name, "late": late, "strangers": list(self.strangers)}

    def _run_all(self, name: str) -> None:
        self.page.goto(f"{self.lab.address}/lab/tree/{name}?token={self.lab.token}&reset")
        self._wait("opened", START_SECONDS)
        if self.page.evaluate("() => window.lesson.asks()"):
            return
        self.page.locator(".lm-MenuBar-item", has_text="Run").click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self._wait("finished", RUN_SECONDS)
        self._wait("drawn", START_SECONDS)

    def _touch_widgets(self) -> None:
        """Move each control by one, and let the kernel answer each."""
        controls = self.page.locator(
            ".jp-OutputArea :is(.noUi-handle, .jupyter-widgets select, .widget-toggle-button,"
            " .widget-toggle-buttons button, .jupyter-widgets input[type=radio],"
            " .jupyter-widgets input[type=checkbox])"
        )
        for index in range(controls.count()):
            control = controls.nth(index)
            if not control.is_visible() or not control.is_enabled():
                continue
            if control.get_attribute("role") == "slider":
                control.press("ArrowRight")
            elif options := control.locator("option").count():
                now = control.evaluate("node => node.selectedIndex")
                control.select_option(index=(now + 1) % options)
            else:
                control.click()
            self.page.evaluate("() => window.lesson.answered()")
            self._wait("idle", RUN_SECONDS)
        self._wait("drawn", START_SECONDS)

    def keep(self, seen: dict[str, Any], *, folder: Path) -> Path:
        """Write what was seen and a picture of the screen into `folder`."""
        name = Path(seen["name"]).stem
        (folder / f"{name}.json").write_text(json.dumps(seen, indent=1), encoding="utf-8")
        self.page.screenshot(path=folder / f"{name}.png")
        return folder

    def close(self) -> None:
        """Close the page and end its kernel: the next lesson finds the memory free."""
        if self.page is not None:
            self.page.close()
            self.page = None
        for session in self.lab.ask("sessions"):
            self.lab.ask(f"sessions/{session['id']}", method="DELETE")
