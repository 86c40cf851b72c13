"""A filter by the names of its pieces, for workers that load it themselves and for configurations that are text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from safetyfilter.errors import UsageError

if TYPE_CHECKING:
    from safetyfilter.embed.options import Decode
    from safetyfilter.embed.pictures.views import Views
    from safetyfilter.filter import SafetyFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRecipe:
    """The pieces of a `SafetyFilter` by their names and files: small to send, and loaded in the worker that filters.

    Attributes
    ----------
    encoder, pretrained : str, str or None
        As of `ClipEncoder.load`.
    probes : tuple of str
        Probe files, published detectors by name (``laion-l14``), and ``zero-shot``.
    policy : str or None
        A preset or a file; the co-occurrence rule alone where None.
    hash_lists : tuple of str
        Lists of known content, as `HashLists.load` takes them.
    views, decode, workers : str, str, int or None
        As of `EmbedOptions`.
    gate : str or None
        For the views ``adaptive``: floors, as `Gate.parse` takes them; those of the probes' cards where None.
    device, precision : str
        As of `ClipEncoder.load`, but for ``int8``, which is made of pictures.
    accept_uncertified : bool
        As of `SafetyFilter`.

    Raises
    ------
    UsageError
        `probes` or `hash_lists` is one text, or there are no probes.

    Examples
    --------
    >>> import tempfile
    >>> from safetyfilter import ClipEncoder, Policy, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> file = f"{tempfile.mkdtemp()}/probes.safetensors"
    >>> zero_shot_probes(ClipEncoder.load(ENCODER, device="cpu"), PROMPTS).save(file)
    >>> recipe = FilterRecipe(encoder=ENCODER, probes=(file,), policy="strict", device="cpu")
    >>> recipe.load().policy.exclude == Policy.load("strict").for_pair(recipe.load().probes.pair).exclude
    True
    """

    encoder: str = "ViT-L-14-quickgelu"
    pretrained: str | None = None
    probes: tuple[str, ...] = ("zero-shot",)
    policy: str | None = None
    hash_lists: tuple[str, ...] = ()
    views: Views = "whole"
    decode: Decode = "fast"
    workers: int | None = None
    gate: str | None = None
    device: str = "auto"
    precision: str = "auto"
    accept_uncertified: bool = False

    def __post_init__(self) -> None:
        for name in ("probes", "hash_lists"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} is the text {getattr(self, name)!r}; give a tuple of names, also of one")
        if not self.probes:
            raise UsageError("probes is empty, so that nothing would be scored; name files, or zero-shot")

    def load(self) -> SafetyFilter:
        """Return the filter; errors as of the pieces, the cheap ones first."""
        # imported here, so that Data-Juicer, which imports all operators when it starts, starts no later
        from safetyfilter.decide.policy import Policy
        from safetyfilter.embed.encoder import ClipEncoder
        from safetyfilter.embed.options import EmbedOptions
        from safetyfilter.filter import SafetyFilter
        from safetyfilter.hashes.lists import HashLists
        from safetyfilter.score.bank import ProbeBank
        from safetyfilter.score.gate import Gate
        from safetyfilter.score.zero_shot import zero_shot_probes

        gate = None if self.gate is None else Gate.parse(self.gate)
        policy = Policy() if self.policy is None else Policy.load(self.policy)
        options = EmbedOptions(views=self.views, decode=self.decode, workers=self.workers)
        banks = [None if name == "zero-shot" else ProbeBank.load(name) for name in self.probes]
        lists = HashLists.load(list(self.hash_lists)) if self.hash_lists else None
        encoder = ClipEncoder.load(
            self.encoder, pretrained=self.pretrained, device=self.device, precision=self.precision
        )
        bound = [zero_shot_probes(encoder) if bank is None else bank.bind(encoder.spec) for bank in banks]
        return SafetyFilter(
            encoder,
            reduce(add, bound),
            policy,
            options,
            hash_lists=lists,
            gate=gate,
            accept_uncertified=self.accept_uncertified,
        )
