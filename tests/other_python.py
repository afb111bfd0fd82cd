"""The Python of tests that compare with other programs' libraries."""

import os
import subprocess
import sys

SKIPPED = 77  # tests/CMakeLists.txt


def with_modules(*names):
    """The Python that RUNG_PYTHON names, else this one. Ends the test as skipped where it lacks one of the modules."""
    python = os.environ.get("RUNG_PYTHON", sys.executable)
    if subprocess.run([python, "-c", f"import {', '.join(names)}"], capture_output=True).returncode != 0:
        print(f"skipped: {python} lacks one of {', '.join(names)}; RUNG_PYTHON names another")
        sys.exit(SKIPPED)
    return python
