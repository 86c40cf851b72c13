"""A scan's memory does not grow with the number of images."""

import subprocess
import sys
from pathlib import Path

import webdataset

from tests.conftest import encoded, photograph

_SCAN = """
import resource, sys
from safetyfilter import ClipEncoder, EmbedOptions, Policy, ProbeBank, SafetyFilter
from safetyfilter.sources import open_source
from safetyfilter.engine.local import scan
source, out, clip, probes = sys.argv[1:]
safe = SafetyFilter(ClipEncoder.load(f"local-dir:{clip}", device="cpu", precision="fp32"), ProbeBank.load(probes),
                    Policy(), EmbedOptions(views="whole", batch_size=32, workers=2))
assert scan(open_source(source), out, safe).counts["unscored"] == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(place: Path, count: int, tiny_clip: Path, probes: Path) -> int:
    """Peak resident memory, in KiB, of a process that scans `count` images."""
    images = [encoded(photograph("china.jpg").resize((96 + n, 64))) for n in range(10)]
    with webdataset.TarWriter(str(place / f"{count}.tar"), encoder=False) as tar:
        for number in range(count):
            tar.write({"__key__": f"{number:06d}", "jpg": images[number % 10]})
    arguments = [place / f"{count}.tar", place / f"run-{count}", tiny_clip, probes]
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_ten_times_the_images_in_the_same_memory(tmp_path: Path, tiny_clip: Path, probes) -> None:
    probes.save(tmp_path / "probes.safetensors")
    few, many = (peak(tmp_path, count, tiny_clip, tmp_path / "probes.safetensors") for count in (2000, 20_000))
    assert many < 1.1 * few
