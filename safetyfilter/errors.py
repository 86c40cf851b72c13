"""The exceptions: one root, and each leaf also refines the built-in it resembles.

::

    SafetyFilterError
    ├── UsageError (ValueError)              the call itself is wrong: exit status 2
    │   ├── PolicyError                      a policy that can't be
    │   │   └── UncertifiedPolicyError       a policy that was calibrated on other scores than those here
    │   ├── UnknownEncoderError              a model or tag that open_clip does not list
    │   └── QuickGELUMismatchError           weights and architecture use different activations
    ├── SourceError (ValueError)             a source that can't be read
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   └── EmptySourceError
    ├── StorageError (OSError)               storage that failed each time it was asked
    ├── OutputError (OSError)                an output that can't be written
    ├── HeldError (BlockingIOError)          a folder that another process holds, or a hold that was lost
    ├── WeightsError (OSError)               weights that can't be had or read
    ├── EncoderMismatchError (ValueError)    a probe on another encoder's embeddings
    ├── SelfCheckError (RuntimeError)        an encoder that does not embed as it should, or as it did
    ├── ProbeError (ValueError)              a probe or probe file that can't be used
    ├── HashListError (ValueError)           a list of hashes that can't be read
    ├── CalibrationError (ValueError)        data that can't support what was asked of it
    ├── RunError (ValueError)                a run directory that can't be used
    │   ├── OtherRunError (FileExistsError)
    │   ├── AttestationError                 a run that is not attested, or not as it was attested
    │   ├── UnfinishedRunError
    │   └── SchemaError
    ├── SecretError (PermissionError)        the run's secret is missing or wrong
    ├── OfficerKeyError (ValueError)         an officer's key file or passphrase that can't be used
    ├── SealedError (ValueError)             sealed records that can't be opened, or that are not whole
    ├── DeviceError (RuntimeError)           the device can't do what was asked
    ├── EngineError (RuntimeError)           an engine that can't be reached, or whose workers failed
    └── MissingExtraError (ImportError)      an optional dependency is not installed

A message says what was wrong, what came, what is allowed, and the remedy.

>>> issubclass(PolicyError, SafetyFilterError) and issubclass(PolicyError, ValueError)
True
"""

from __future__ import annotations

from typing import ClassVar


class SafetyFilterError(Exception):
    """The root of every error this library raises on purpose."""

    exit_status: ClassVar[int] = 1


class UsageError(SafetyFilterError, ValueError):
    """The call itself is wrong; nothing was read or written."""

    exit_status: ClassVar[int] = 2


class PolicyError(UsageError):
    """A policy with an unknown signal, preset or key, or a threshold outside [0, 1]."""


class UncertifiedPolicyError(PolicyError):
    """A policy whose thresholds were calibrated on scores that were made in another way than those it is to decide on.

    Nothing is wrong with the call, and so a command ends as failed and not as wrong usage.
    """

    exit_status: ClassVar[int] = 1


class UnknownEncoderError(UsageError):
    """A model or a pretrained tag that open_clip does not list."""


class QuickGELUMismatchError(UsageError):
    """Weights trained with one activation, loaded into an architecture with the other."""


class SourceError(SafetyFilterError, ValueError):
    """A source that is not an image folder, WebDataset, Parquet or saved data set, or can't be read."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A source that is not there."""


class EmptySourceError(SourceError):
    """A source that holds no sample."""


class StorageError(SafetyFilterError, OSError):
    """Storage that failed each time it was asked: says nothing about a sample, and the part stays undone."""


class OutputError(SafetyFilterError, OSError):
    """An output that can't be written, or that already holds something else."""


class HeldError(SafetyFilterError, BlockingIOError):
    """A folder that another process holds, or may have taken over since the hold on it was lost."""


class WeightsError(SafetyFilterError, OSError):
    """Weights that can't be downloaded, found or read."""


class EncoderMismatchError(SafetyFilterError, ValueError):
    """A probe applied to embeddings of an encoder other than its own."""


class SelfCheckError(SafetyFilterError, RuntimeError):
    """An encoder whose embeddings of generated pictures are wrong, or not what they were; nothing is scored by it."""


class ProbeError(SafetyFilterError, ValueError):
    """A probe, or a probe file, that can't be used."""


class HashListError(SafetyFilterError, ValueError):
    """A list of hashes that is not there, can't be read, or holds none."""


class CalibrationError(SafetyFilterError, ValueError):
    """Scores, labels or embeddings that can't support the training or the guarantee asked for."""


class RunError(SafetyFilterError, ValueError):
    """A run directory that can't be used."""


class OtherRunError(RunError, FileExistsError):
    """The output directory holds a run of another source, encoder or set of probes."""


class AttestationError(RunError):
    """A run without an attestation, or whose attestation does not hold, or not by the key that was given."""


class UnfinishedRunError(RunError):
    """The run has parts that are not scored or not decided yet."""


class SchemaError(RunError):
    """A file written by another version of the schema."""


class SecretError(SafetyFilterError, PermissionError):
    """The run's secret is missing, unreadable or another run's."""


class OfficerKeyError(SafetyFilterError, ValueError):
    """An officer's key file, or its passphrase, that can't be used."""


class SealedError(SafetyFilterError, ValueError):
    """Sealed records that can't be opened, or that are not whole."""


class DeviceError(SafetyFilterError, RuntimeError):
    """A device or a precision that this machine does not offer."""


class EngineError(SafetyFilterError, RuntimeError):
    """An engine that can't be reached, or whose workers can't do what was asked; finished parts are kept."""


class MissingExtraError(SafetyFilterError, ImportError):
    """An optional dependency is not installed.

    >>> str(MissingExtraError("matplotlib", "notebook"))
    "matplotlib is not installed: pip install 'safetyfilter[notebook]', or in a checkout pip install '.[notebook]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: pip install 'safetyfilter[{extra}]', or in a checkout "
            f"pip install '.[{extra}]'"
        )
