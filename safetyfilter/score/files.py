"""Probes on disk: safetensors that carry the encoder's identity and the probes' cards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from safetyfilter.errors import OutputError, ProbeError, SchemaError
from safetyfilter.score.probe import LinearProbe, ProbeBank, ProbeCard

SCHEMA = 1
_KIND = "safetyfilter-linear-probes"


def save_probes(bank: ProbeBank, path: str | Path) -> None:
    """Write a bank of linear probes.

    Raises
    ------
    ProbeError
        The bank holds a probe that is not linear, or mixes probes with and without captions.
    OutputError
        The file can't be written.
    """
    if len({probe.inputs for probe in bank.probes}) > 1:
        raise ProbeError(
            "probes on images and probes on images with captions go into files of their own; --probes may "
            "be given more than once"
        )
    linear = [probe for probe in bank.probes if isinstance(probe, LinearProbe)]
    if len(linear) != len(bank.probes):
        raise ProbeError("only linear probes are written to a file; name LAION's detectors by their own file")
    header = {
        "kind": _KIND,
        "schema": str(SCHEMA),
        "encoder": linear[0].encoder,
        "inputs": linear[0].inputs,
        "signals": json.dumps([probe.signal for probe in linear]),
        "cards": json.dumps([asdict(probe.card) if probe.card else None for probe in linear]),
    }
    tensors = {"weight": np.stack([probe.weight for probe in linear]), "bias": np.array([p.bias for p in linear])}
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(save(tensors, metadata=header))
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"can't write the probes to {path}: {error.strerror}; choose a writable place") from error


def load_probes(path: str | Path) -> ProbeBank:
    """Read a bank of linear probes.

    Raises
    ------
    ProbeError
        The file is missing, damaged, or no probe file.
    SchemaError
        The file was written by another version of the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"no probe file at {path}; make one with `safetyfilter train` or ProbeBank.save")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("kind") != _KIND:
                raise ProbeError(f"{path} is a safetensors file but holds no probes; make one with ProbeBank.save")
            if header.get("schema") != str(SCHEMA):
                raise SchemaError(
                    f"{path} has schema {header.get('schema')}, this version reads {SCHEMA}; "
                    "use the version that wrote it, or make the probes anew"
                )
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            signals, cards = json.loads(header["signals"]), json.loads(header["cards"])
            probes = [
                LinearProbe(
                    signal=signal,
                    weight=w,
                    bias=float(b),
                    encoder=header["encoder"],
                    inputs=header.get("inputs", "image"),
                    card=ProbeCard(**card) if card else None,
                )
                for signal, w, b, card in zip(signals, weight, bias, cards, strict=True)
            ]
    except (SafetensorError, KeyError, TypeError, OSError, json.JSONDecodeError) as error:
        raise ProbeError(f"can't read the probes in {path}: {error}; the file is damaged, make it anew") from error
    except ValueError as error:
        if isinstance(error, ProbeError | SchemaError):
            raise
        raise ProbeError(f"can't read the probes in {path}: {error}; the file is damaged, make it anew") from error
    return ProbeBank(probes)
