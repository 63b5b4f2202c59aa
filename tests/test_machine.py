"""Where a progress bar goes."""

import subprocess
import sys

from sftlab.machine import progress_stream


def test_a_program_that_only_imports_ipykernel_is_no_notebook():
    import ipykernel.kernelapp  # noqa: F401 - as ipywidgets and papermill do

    assert progress_stream() is sys.stderr


def test_a_kernel_is_one():
    code = (
        "import sys; from ipykernel.kernelapp import IPKernelApp; IPKernelApp.instance();"
        "from sftlab.machine import progress_stream; print(progress_stream() is sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
