"""clip-retrieval's own reader and mapper, run from an environment of its own, beside ours and in turn with it.

clip-retrieval 2.45.0 imports only beside ``setuptools<70``, and pins versions that ours should not be held to. Nothing
of it is changed but the download of weights, which are random here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

VERSION = "2.45.0"
PLACE = Path(os.environ.get("SAFETYFILTER_BENCHMARK_ENV", Path.home() / ".cache/safetyfilter/clip-retrieval-env"))
_BATCH = 32
_WORKERS = 2

# Answers each line on standard input with the seconds of one pass over the folder.
_PROGRAM = """
import sys, time
import open_clip, torch
architecture, folder, batch, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
original = open_clip.create_model_and_transforms
open_clip.create_model_and_transforms = lambda name, pretrained=None, **other: original(name, pretrained=None, **other)
from clip_retrieval.clip_inference.mapper import ClipMapper
from clip_retrieval.clip_inference.reader import FilesReader
from clip_retrieval.load_clip import get_tokenizer, load_clip
name = f"open_clip:{architecture}"
_, preprocess = load_clip(name, use_jit=False)
mapper = ClipMapper(enable_image=True, enable_text=False, enable_metadata=False, use_mclip=False, clip_model=name,
                    use_jit=False, mclip_model="")
reader = FilesReader(lambda keys: keys, preprocess, get_tokenizer(name), folder, batch, workers, enable_text=False)
print("\\nready", flush=True)
for _ in sys.stdin:
    started, count = time.perf_counter(), 0
    for item in reader:
        count += len(mapper(item)["image_embs"])
    print(f"\\nseconds {time.perf_counter() - started} {count}", flush=True)
"""


@dataclass(slots=True)
class ClipRetrieval:
    """A running clip-retrieval, or the reason why there is none."""

    skipped: str | None
    process: subprocess.Popen[str] | None = None
    count: int = 0

    @classmethod
    def start(cls, architecture: str, files: list[bytes], folder: Path) -> ClipRetrieval:
        """Write the images to a folder and start clip-retrieval on it, installing it first where it is missing."""
        try:
            python = _installed()
        except (OSError, subprocess.CalledProcessError) as error:
            return cls(f"it could not be installed: {error}")
        for number, content in enumerate(files):
            (folder / f"{number:06d}.jpg").write_bytes(content)
        process = subprocess.Popen(
            [str(python), "-W", "ignore", "-c", _PROGRAM, architecture, str(folder), str(_BATCH), str(_WORKERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        peer = cls(None, process, len(files))
        if peer._answer("ready") is None:
            _, errors = process.communicate()
            return cls(f"it did not start: {errors.strip().splitlines()[-1] if errors.strip() else 'no message'}")
        return peer

    def run(self) -> float:
        """The seconds of one pass; every image must have been embedded."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer("seconds")
        if answer is None:
            raise RuntimeError("clip-retrieval stopped in the middle of a pass")
        _, seconds, count = answer.split()
        if int(count) != self.count:
            raise RuntimeError(f"clip-retrieval embedded {count} of {self.count} images")
        return float(seconds)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _answer(self, word: str) -> str | None:
        assert self.process is not None
        assert self.process.stdout is not None
        return next((line for line in self.process.stdout if line.startswith(word)), None)


def _installed() -> Path:
    python = PLACE / "bin" / "python"
    if not (PLACE / "installed").exists():
        print(f"installing clip-retrieval {VERSION} into {PLACE} (several GB, minutes)", file=sys.stderr)
        venv.create(PLACE, with_pip=True, clear=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "setuptools<70", f"clip-retrieval=={VERSION}"], check=True
        )
        (PLACE / "installed").touch()
    return python
