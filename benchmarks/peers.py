"""Other tools' own embedding code, each run from an environment of its own, beside ours and in turn with it.

They pin versions that ours should not be held to (clip-retrieval 2.45.0 imports only beside ``setuptools<70``). Nothing
of them is changed but for what the programs below say; weights are random, since speed does not depend on them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ENVIRONMENTS = Path(os.environ.get("SAFETYFILTER_BENCHMARK_ENV", Path.home() / ".cache/safetyfilter/benchmarks"))
_BATCH, _WORKERS = 32, 2

# Each program is given the architecture and a folder of JPEG files, and answers each line on standard input with the
# seconds of one pass over them.
_CLIP_RETRIEVAL = """
import sys, time
import open_clip
architecture, folder, batch, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
original = open_clip.create_model_and_transforms
open_clip.create_model_and_transforms = lambda name, pretrained=None, **other: original(name, pretrained=None, **other)
from all_clip import load_clip
from clip_retrieval.clip_inference.mapper import ClipMapper
from clip_retrieval.clip_inference.reader import FilesReader
name = f"open_clip:{architecture}"
_, preprocess, tokenizer = load_clip(name, use_jit=False)
mapper = ClipMapper(enable_image=True, enable_text=False, enable_metadata=False, use_mclip=False, clip_model=name,
                    use_jit=False, mclip_model="")
reader = FilesReader(lambda keys: keys, preprocess, tokenizer, folder, batch, workers, enable_text=False)
print("\\nready", flush=True)
for _ in sys.stdin:
    started, count = time.perf_counter(), 0
    for item in reader:
        count += len(mapper(item)["image_embs"])
    print(f"\\nseconds {time.perf_counter() - started} {count}", flush=True)
"""

# NeMo Curator's own reader and embedding stage, one behind the other. The reader decodes on the CPU where there is no
# CUDA, but asks DALI for a pipeline on device 0 even so, at which DALI stops: it is given None, and that is all that is
# changed.
_NEMO_CURATOR = """
import sys, tarfile, time
from pathlib import Path
import nvidia.dali as dali
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer
architecture, folder, batch, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
width, layers, patch = {"ViT-B-32": (768, 12, 32), "ViT-L-14": (1024, 24, 14)}[architecture]
weights = folder / "openai" / "clip-vit-large-patch14"
CLIPModel(CLIPConfig(vision_config={"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
                                    "num_attention_heads": width // 64, "patch_size": patch})).save_pretrained(weights)
CLIPImageProcessor().save_pretrained(weights)
(weights / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
(weights / "merges.txt").write_text("#version: 0.2\\n")
CLIPTokenizer(str(weights / "vocab.json"), str(weights / "merges.txt")).save_pretrained(weights)
if not torch.cuda.is_available():
    pipeline_def = dali.pipeline_def
    dali.pipeline_def = lambda **options: pipeline_def(**(options | {"device_id": None}))
from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.tasks import FileGroupTask
with tarfile.open(folder / "0.tar", "w") as tar:
    for path in sorted(folder.glob("*.jpg")):
        tar.add(path, path.name)
reader = ImageReaderStage(dali_batch_size=batch, num_threads=workers)
stage = ImageEmbeddingStage(model_dir=str(folder), model_inference_batch_size=batch)
stage.setup()
print("\\nready", flush=True)
for _ in sys.stdin:
    started, count = time.perf_counter(), 0
    for read in reader.process(FileGroupTask(dataset_name="benchmark", data=[str(folder / "0.tar")])):
        count += sum(image.embedding is not None for image in stage.process(read).data)
    print(f"\\nseconds {time.perf_counter() - started} {count}", flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What is installed, and the program that embeds a folder with it."""

    requirements: tuple[str, ...]
    program: str


TOOLS = {
    "clip_retrieval": Tool(requirements=("setuptools<70", "clip-retrieval==2.45.0"), program=_CLIP_RETRIEVAL),
    # its stage fails with transformers 5, which it admits: get_image_features returns another type there
    "nemo_curator": Tool(
        requirements=("nemo-curator[image-cpu]==1.4.0", "nvidia-dali-cuda120==2.4.0", "transformers<5"),
        program=_NEMO_CURATOR,
    ),
}


@dataclass(slots=True)
class Peers:
    """The tools that run here, each embedding the same files, and for the others the reason why not.

    Use it as a context manager: the tools' processes end with it.
    """

    runs: dict[str, Callable[[], float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    @classmethod
    def start(cls, architecture: str, files: list[bytes], names: tuple[str, ...] = tuple(TOOLS)) -> Peers:
        """Write the files to a folder and start each tool on it, installing it first where it is missing."""
        peers = cls()
        for number, content in enumerate(files):
            (Path(peers._folder.name) / f"{number:06d}.jpg").write_bytes(content)
        for name in names:
            try:
                python = _installed(name)
            except (OSError, subprocess.CalledProcessError) as error:
                peers.skipped[name] = f"it could not be installed: {error}"
            else:
                peers._start(name, [str(python), "-W", "ignore", "-c", TOOLS[name].program, architecture], len(files))
        return peers

    def _start(self, name: str, command: list[str], count: int) -> None:
        process = subprocess.Popen(
            [*command, self._folder.name, str(_BATCH), str(_WORKERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)

        def run() -> float:
            """The seconds of one pass; every image must have been embedded."""
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            answer = _answer(process, "seconds")
            if answer is None:
                raise RuntimeError(f"{name} stopped in the middle of a pass")
            _, seconds, embedded = answer.split()
            if int(embedded) != count:
                raise RuntimeError(f"{name} embedded {embedded} of {count} images")
            return float(seconds)

        try:
            if _answer(process, "ready") is None:
                raise RuntimeError(f"{name} did not start")
            run()
        except (RuntimeError, OSError) as error:
            process.kill()
            _, errors = process.communicate()
            lines = errors.strip().splitlines() or ["no message"]
            self.skipped[name] = f"{error}: {lines[-1]}"
        else:
            self.runs[name] = run

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._folder.cleanup()


def _answer(process: subprocess.Popen[str], word: str) -> str | None:
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith(word)), None)


def _installed(name: str) -> Path:
    place = ENVIRONMENTS / name
    python, requirements = place / "bin" / "python", "\n".join(TOOLS[name].requirements)
    done = place / "installed"
    if not done.exists() or done.read_text() != requirements:
        print(f"installing {name} into {place} (several GB, minutes)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *TOOLS[name].requirements], check=True)
        done.write_text(requirements)
    return python
