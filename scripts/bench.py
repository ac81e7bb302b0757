"""Our daemon against Debian's containerd, on one machine, side by side: the table of docs/performance.md.

The program is the directory `bench`, of which this is the way in: see bench/__main__.py.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "bench"), run_name="__main__")
