"""Environments in which the stages are tested against the real frameworks, each pinned, and apart from one another.

    python tests/integrations/environments.py [NAME ...]

makes them below ``~/.cache/safetyfilter/integrations``, or where SAFETYFILTER_INTEGRATIONS says: minutes, and 6 to 7 GB
for each, most of it torch with CUDA. `test_environments.py` then runs each framework's tests in its own, and skips
those that are not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    # transformers 5 returns from get_image_features what NeMo Curator's stage does not take
    "nemo_curator": ("nemo-curator[image-cpu]==1.4.0", "nvidia-dali-cuda120==2.4.0", "transformers<5"),
    "data_juicer": ("py-data-juicer==1.6.1", "aiohttp"),  # which it imports, and does not require
    "datatrove": ("datatrove[io]==0.10.1",),
}


def python_of(name: str) -> Path:
    """The interpreter of a framework's environment, which need not be there."""
    place = os.environ.get("SAFETYFILTER_INTEGRATIONS", Path.home() / ".cache" / "safetyfilter" / "integrations")
    return Path(place) / name / "bin" / "python"


def make(name: str) -> None:
    """Make a framework's environment, with this library as it lies here."""
    python = python_of(name)
    venv.create(python.parents[1], with_pip=True, clear=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[name], "pytest", "-e", ROOT], check=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or REQUIREMENTS:
        make(chosen)
