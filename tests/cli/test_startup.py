"""What commands load: those that embed nothing answer without torch, and the help without Arrow, NumPy and Rich."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.attest.sign import attest_run
from safetyfilter.cli.importing import large_imports
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.private_keys import PrivateKeys, write_keys
from tests.attest.runs import PARTS, finished

PROGRAM = """
import json, sys
from safetyfilter.cli import main
loaded = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["safetyfilter", *arguments]
    try:
        main()
    except SystemExit as ended:
        heavy = ("torch", "open_clip", "scipy.stats", "pyarrow", "numpy", "rich")
        packages = [name for name in heavy if name in sys.modules]
        loaded[arguments[0]] = [ended.code or 0, packages]
json.dump(loaded, open("loaded.json", "w"))
"""
PASSPHRASE = "a phrase of several words"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    finished(place := tmp_path_factory.mktemp("run") / "run")
    return place


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """The exit status of each command, and the packages that had been loaded by its end, in one process."""
    place = tmp_path_factory.mktemp("startup")
    run = finished(place / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_keys, "OPERATIONS", 1)
        patch.setattr(private_keys, "MEMORY_BYTES", 8192)
        write_keys(place / "officer.key", PASSPHRASE)
        attest_run(run, PrivateKeys.open(place / "officer.key", PASSPHRASE))
    rows = [row for part in PARTS.values() for row in part]
    labels = {name: [number % 2 == 0 for number in range(len(rows))] for name in ("explicit", "minor")}
    pq.write_table(pa.table({"key": [row[0] for row in rows], **labels}), place / "labels.parquet")
    commands = [
        ["--help"],
        ["status", "run"],
        ["why", "run", rows[1][0]],
        ["verify", "run", "--key", "officer.key.pub"],
        ["decide", "run", "--policy", "strict"],
        ["evaluate", "run", "labels.parquet"],  # and with it scikit-learn
        ["report", "run"],
    ]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=place, check=True, capture_output=True, timeout=600
    )
    found: dict[str, list[object]] = json.loads(Path(place / "loaded.json").read_text())
    return found


@pytest.mark.parametrize("command", ["--help", "status", "why", "verify", "evaluate", "decide", "report"])
def test_what_embeds_nothing_loads_no_torch(loaded: dict[str, list[object]], command: str) -> None:
    status, packages = loaded[command]
    assert status == 0
    assert not {"torch", "open_clip"} & set(packages)


@pytest.mark.parametrize("command", ["status", "why", "verify", "decide"])
def test_distributions_are_not_loaded_for_a_bound(loaded: dict[str, list[object]], command: str) -> None:
    assert "scipy.stats" not in loaded[command][1]


def test_the_help_loads_little(loaded: dict[str, list[object]]) -> None:
    assert loaded["--help"][1] == []


def test_a_worker_of_a_cluster_loads_no_torch_before_it_gets_an_encoder() -> None:
    program = "import sys, safetyfilter.engine.ray_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0


INTERRUPTED = """
import sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from safetyfilter.__main__ import main
main()
"""


def test_an_interruption_while_modules_are_loaded_is_one_word() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_was_closed_ends_no_command(run: Path, stream: str, options: list[str]) -> None:
    number = {"stdout": 1, "stderr": 2}[stream]
    command = f'"$0" -m safetyfilter status "$1" {" ".join(options)} {number}>&-'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (stream == "stderr")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status", "RUN"], ["status", "RUN", "--json"]])
def test_a_result_for_which_there_is_no_room_is_an_error(run: Path, arguments: list[str]) -> None:
    given = [str(run) if argument == "RUN" else argument for argument in arguments]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "safetyfilter", *given], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "error: the result can't be written (No space left on device); make room, or send it elsewhere\n"
    )


COMPILES = """
import logging, sys
import safetyfilter.cli
main = sys.modules["safetyfilter.cli.main"]
def app(**_):
    for name in ("safetyfilter.embed.cuda.compiled", "safetyfilter.embed"):
        logging.getLogger(name).info("%s takes a minute", name)
main.app = app
main.main()
"""


def test_that_a_tower_is_compiled_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert " ".join(done.stderr.split()) == "INFO safetyfilter.embed.cuda.compiled takes a minute"


IMPORTS = """
import os, signal, sys
from safetyfilter.cli.importing import large_imports
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs behind it ignore interruptions
with large_imports():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        print("raised", type(error).__name__)
"""


def test_an_interruption_of_large_imports_raises_nothing_in_them() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_an_interruption_is_raised_again_behind_large_imports() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with large_imports():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_as_the_process_ends_what_was_imported_is_not_looked_through() -> None:
    program = (
        "import atexit, gc, safetyfilter.cli.importing as importing\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "with importing.large_imports(): pass"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "True\n"
