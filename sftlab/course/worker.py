"""One notebook in one process: `python -m sftlab.course.worker JOB.json`, started by the runner.

papermill changes the folder of its process and keeps signal handlers, so notebooks never share
one. The job is `{"notebook", "output", "parameters", "scratch"}`; each line that starts with
`MARK` on stdout is an event in JSON:

    {"cell": 3, "of": 41}                       a cell starts, counted from 1
    {"failed": {"cell", "source", "traceback"}} a cell raised
    {"died": "..."}                             the kernel is gone, or papermill itself failed
    {"finished": true}
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

MARK = "sftlab-event "
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def tell(**event: Any) -> None:
    print(MARK + json.dumps(event), flush=True)


def use_this_python(folder: Path) -> None:
    """Register a kernel `python3` of this very interpreter, ahead of every other one.

    A user's own kernelspec of that name may start another environment, and there may be none.
    """
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), before]))


def plain(text: str) -> str:
    """`text` without the colour codes of a terminal."""
    return _ANSI.sub("", text)


def _failure(executed: Path, source: Path) -> dict[str, Any] | None:
    """The cell that raised, counted from 1 as in the committed notebook, where it has a place."""
    ids = [cell.get("id") for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]]
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                place = ids.index(cell["id"]) + 1 if cell.get("id") in ids else None
                return {
                    "cell": place,
                    "source": "".join(cell["source"]),
                    "traceback": plain("\n".join(output["traceback"])),
                }
    return None


def work(job: dict[str, Any]) -> int:
    """Execute the notebook of `job`; 0 when every cell ran, 1 otherwise."""
    source, output = Path(job["notebook"]), Path(job["output"])
    use_this_python(Path(job["scratch"]) / "jupyter")

    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    class Telling(NBClientEngine):
        """papermill's own engine, which also says which cell starts."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **rest: Any) -> None:
            start, of = nb_man.cell_start, len(nb_man.nb.cells)

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                tell(cell=(cell_index or 0) + 1, of=of)
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            super().execute_managed_notebook(nb_man, kernel_name, **rest)

    papermill_engines.register("sftlab", Telling)
    try:
        papermill.execute_notebook(
            str(source),
            str(output),
            parameters=job["parameters"],
            engine_name="sftlab",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            store_widget_state=False,
            # Else the whole notebook, pictures and all, is written before each cell; every half
            # minute, and at the end whatever happens, is enough.
            request_save_on_cell_execute=False,
            # A kernel waits for all processes that it began, multiprocessing's own helper among
            # them, which hears no SIGTERM: 5 s, after which it is killed in any case.
            shutdown_kernel="immediate",
        )
    except papermill.PapermillExecutionError:
        tell(failed=_failure(output, source))
        return 1
    except Exception as error:
        tell(died=f"{type(error).__name__}: {plain(str(error))}")
        return 1
    tell(finished=True)
    return 0


if __name__ == "__main__":
    sys.exit(work(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
