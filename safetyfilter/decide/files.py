"""The text of a policy file, or an error that says what can be given in its place."""

from __future__ import annotations

from safetyfilter.batches import Unreadable
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import PolicyError, StorageError
from safetyfilter.storage import Location, Place


def policy_text(place: Place) -> str:
    """Return the text of a policy file.

    Parameters
    ----------
    place : str, path or Location
        A local path or a URL.

    Raises
    ------
    PolicyError
        There is no such file, or it is not text, or it says nothing: defaults are not to be had by an empty file.
    StorageError
        The storage failed.

    Examples
    --------
    >>> policy_text("lenient")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.PolicyError: 'lenient' is neither a policy file nor a preset; the presets are co-occurrence, \
separate, no-minors, strict, laion-0.1, laion-0.5, laion-0.98
    """
    name = str(place)
    try:
        text = Location.of(place).read_text()
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise PolicyError(
            f"{name!r} is neither a policy file nor a preset; the presets are {', '.join(PRESETS)}"
        ) from error
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        raise PolicyError(f"can't read the policy {name}: {error}; it must be a UTF-8 TOML file") from error
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        raise PolicyError(
            f"the policy file {name} is empty; give it [thresholds] or [exclude], or name the preset co-occurrence, "
            "which needs neither"
        )
    return text
