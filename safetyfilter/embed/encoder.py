"""An open_clip model and its identity: loads it, checks it, and embeds images and texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from safetyfilter.batches import EmbeddingBatch, Floats, ImageInput
from safetyfilter.embed.clip.configuration import model_digest
from safetyfilter.embed.clip.fitting import check_finite
from safetyfilter.embed.clip.loading import DEFAULT_MODEL, load_model, naming
from safetyfilter.embed.clip.model import state_digest, width_and_flops
from safetyfilter.embed.clip.preprocessing import PreprocessInput
from safetyfilter.embed.clip.tokens import LazyTokenizer
from safetyfilter.embed.clip.towers import ImageOnly
from safetyfilter.embed.crops import Closer
from safetyfilter.embed.cuda.compiled import CompiledTower
from safetyfilter.embed.cuda.float8 import float8_module
from safetyfilter.embed.devices import (
    FLOAT8,
    Compile,
    require_processor,
    resolve_compile,
    resolve_device,
    resolve_dtype,
)
from safetyfilter.embed.image_tower import TorchTower, without_image_tower
from safetyfilter.embed.int8.cache import kept_tower
from safetyfilter.embed.int8.own_pictures import quantised_on
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.int8.tower import Int8Tower
from safetyfilter.embed.libraries import open_clip
from safetyfilter.embed.openvino.modules import nncf_module, openvino_module
from safetyfilter.embed.openvino.tower import ConvertedTower, is_faster_by_openvino
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.inputs import several
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.embed.pipeline import EmbeddingPipeline, ReadItem
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, UsageError

T = TypeVar("T")
R = TypeVar("R")


class ClipEncoder:
    """A CLIP model that embeds encoded images in batches.

    Use `load`; the constructor wraps an open_clip model that is already in memory.

    Parameters
    ----------
    model : torch.nn.Module
        An open_clip model in float32 on the CPU. The encoder takes it over: the image tower moves to the device.
    architecture : str
        The name of its architecture.
    config : mapping or None
        Its configuration, open_clip's ``model_cfg``. Where None, that of the architecture; one that open_clip does not
        list is then told from others by its name alone.
    tokenizer : callable or None
        Texts -> (N, L) int64 tokens; None for an encoder that embeds no text.
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``auto``, ``fp32``, ``bf16`` or ``fp16``. On the CPU ``auto`` takes bfloat16 weights where the processor has
        the instructions and float32 elsewhere, and has OpenVINO embed a scan's pictures in bfloat16 where that is the
        faster (AMX) and installed; on CUDA bfloat16, or float16 before compute capability 8. ``int8`` needs
        pictures: see `load` and `quantised`. ``fp8`` is for GPUs of compute capability 9.0 and later, by torchao.
    compile : bool or "auto"
        Have torch compile the image tower, on CUDA as one graph of kernels, which takes half a minute when the first
        full batch comes, and some seconds once torch has it in its cache; smaller batches are embedded by the tower as
        it is, but for those of a scan, which are filled up. ``auto`` compiles on CUDA and nowhere else.

    Attributes
    ----------
    spec : EncoderSpec
        The encoder's identity, the same for every device and precision.
    dtype : torch.dtype
        That of the image tower's weights.
    flops : float
        Floating-point operations of the image tower for one image.

    Raises
    ------
    WeightsError
        A weight is not a finite number.
    """

    loaded: ClassVar[bool] = True
    """There is a model that embeds."""

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        architecture: str,
        config: Mapping[str, Any] | None = None,
        tokenizer: Callable[[Sequence[str]], torch.Tensor] | None = None,
        device: str = "auto",
        precision: str = "auto",
        compile: Compile = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(precision, self.device)
        if self.dtype == torch.int8:
            raise UsageError("int8 is made of float32 weights; give precision='fp32', and then call `quantised`")
        compiled = resolve_compile(compile, self.dtype, self.device)
        with ThreadPoolExecutor(1) as other:  # the digest takes longest, and none of the interpreter's time
            weights = other.submit(state_digest, model.state_dict())
            check_finite(model)
            width, self.flops = width_and_flops(model)
        preprocess = open_clip.get_model_preprocess_cfg(model)
        size = preprocess["size"]
        self.spec = EncoderSpec(
            architecture=architecture,
            weights_sha256=weights.result(),
            config_sha256=model_digest(model, architecture, config),
            image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
            mean=tuple(preprocess["mean"]),
            std=tuple(preprocess["std"]),
            interpolation=preprocess["interpolation"],
            resize_mode=preprocess["resize_mode"],
            fill_color=int(preprocess.get("fill_color", 0)),
            width=width,
        )
        model.eval().requires_grad_(False)
        self._model = model
        self._tokenizer = tokenizer
        tower = TorchTower(
            model.visual,  # type: ignore[arg-type]
            self.spec.mean,
            self.spec.std,
            dtype=self.dtype,
            device=self.device,
        )
        self._tower: TorchTower | CompiledTower | ConvertedTower | Int8Tower = tower
        if compiled:
            self._tower = CompiledTower(tower)
        elif precision == "auto" and self.dtype == torch.bfloat16 and is_faster_by_openvino(self.flops):
            self._tower = ConvertedTower(tower, self.spec.image_size)
        self._origin: dict[str, Any] | None = None
        self._text_device = torch.device("cpu")

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        pretrained: str | os.PathLike[str] | None = None,
        preprocess: PreprocessInput = None,
        device: str = "auto",
        precision: str = "auto",
        compile: Compile = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        quantise_on: Iterable[ImageInput] | QuantisedTower | None = None,
    ) -> ClipEncoder:
        """Load an encoder by open_clip's own naming.

        Parameters
        ----------
        model : str
            An architecture that open_clip lists, ``hf-hub:ORG/REPO``, ``local-dir:FOLDER``, or a name that an
            installed package gives in the group ``safetyfilter.encoders`` of its entry points.
        pretrained : str, path or None
            For a listed architecture: a tag that open_clip lists for it, or a checkpoint file; where None, ``openai``
            or the architecture's only tag. For ``local-dir:``, one of several weight files in the folder. Must be None
            for ``hf-hub:``.
        preprocess : str, path, mapping or None
            What the weights' pictures go through, where nothing else tells: a tag (``openai`` for CLIP's own), an
            ``open_clip_config.json``, or a mapping with ``mean``, ``std``, ``interpolation``, ``resize_mode`` and
            ``fill_color``. Where None, that of the tag; for a checkpoint file that of the configuration beside it, else
            what the architecture's tags agree on.
        device, precision : str
            See the class; the precision may be ``int8`` too, on the CPU.
        compile : bool or "auto"
            See the class; not for ``int8``.
        cache_dir : path or None
            Where downloads go; open_clip's own place where None.
        quantise_on : iterable of bytes, path or PIL.Image, or QuantisedTower, optional
            For ``int8`` alone, which needs it: see `quantised`.

        Raises
        ------
        UnknownEncoderError
            open_clip lists no such model or tag.
        QuickGELUMismatchError
            The weights were trained with another activation than the architecture has.
        WeightsError
            The weights can't be downloaded, found or read, belong to another architecture, or are not finite; or
            their configuration is damaged or their preprocessing not known.
        UsageError, DeviceError, MissingExtraError
            The device or precision is unknown or not offered here; or ``int8`` came without pictures, or pictures came
            with another precision.

        Examples
        --------
        >>> from safetyfilter.standin import ENCODER
        >>> encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
        >>> encoder.embed_text(["a three"]).shape == (1, encoder.spec.width)
        True
        """
        target = resolve_device(device)  # what is wrong is told before the weights are loaded
        dtype = resolve_dtype(precision, target)
        if (dtype == torch.int8) != (quantise_on is not None):
            raise UsageError(
                "int8 (--precision int8) and pictures to quantise on (quantise_on) go together: give both, some "
                "hundreds of those that are to be embedded, or neither"
            )
        resolve_compile(compile, dtype, target)
        if dtype == FLOAT8:
            float8_module()
        if quantise_on is not None:
            _ = openvino_module() if isinstance(quantise_on, QuantisedTower) else nncf_module()
            full = cls.load(
                model,
                pretrained=pretrained,
                preprocess=preprocess,
                device=device,
                precision="fp32",
                cache_dir=cache_dir,
            )
            return full.quantised(quantise_on)
        loaded = load_model(model, pretrained, preprocess, cache_dir)
        with naming(model, pretrained):
            encoder = cls(
                loaded.model,
                architecture=loaded.architecture,
                config=loaded.config,
                tokenizer=loaded.tokenizer,
                device=device,
                precision=precision,
                compile=compile,
            )
        encoder.spec = replace(encoder.spec, tag=loaded.tag)
        encoder._origin = {
            "model": model,
            "pretrained": pretrained,
            "preprocess": dict(preprocess) if isinstance(preprocess, Mapping) else preprocess,
            "precision": precision,
            "compile": compile,
            "cache_dir": cache_dir,
        }
        return encoder

    def quantised(self, on: Iterable[ImageInput] | QuantisedTower) -> ClipEncoder:
        """Return the same encoder with its image tower in int8, run by OpenVINO on the processor.

        The tower is kept in the user's cache, and made once of the same encoder, pictures and versions. Other pictures
        give another tower, whose embeddings differ by little: a run has one tower, which its record names.

        Parameters
        ----------
        on : iterable of bytes, path or PIL.Image, or QuantisedTower
            Some hundreds of pictures like those that are to be embedded, of which the first 300 that can be read count;
            or a tower that was made of such before.

        Raises
        ------
        UsageError
            This encoder is not in float32 on the CPU; or there is no picture that can be read.
        EncoderMismatchError
            The tower is that of another encoder.
        MissingExtraError
            OpenVINO or NNCF is not installed.
        WeightsError
            They can't convert this image tower.
        OutputError
            The cache can't be written.
        """
        if isinstance(on, QuantisedTower):
            made = on
        else:
            made = quantised_on(self._tower, self.spec, self.preparer(EmbedOptions(views="whole")), on)
        if made.encoder != self.spec.digest:
            raise EncoderMismatchError(
                f"the quantised model {made.digest[:12]} is that of the encoder {made.encoder[:12]}, not of "
                f"{self.spec}; quantise this one"
            )
        encoder = object.__new__(ClipEncoder)
        vars(encoder).update(vars(self))
        encoder._tower, encoder.device, encoder.dtype = Int8Tower(made), torch.device("cpu"), torch.int8
        encoder._model = without_image_tower(self._model)  # which is not needed there, and goes with this encoder
        return encoder

    @property
    def full_batches(self) -> bool:
        """True where the tower is made for batches of one size."""
        return self._tower.full_batches

    @property
    def scans_otherwise(self) -> bool:
        """True where full batches are embedded by other code than a few pictures."""
        return isinstance(self._tower, ConvertedTower) and self._tower.converts

    @property
    def quantised_tower(self) -> QuantisedTower | None:
        """The image tower in int8; None in every other precision."""
        return self._tower.quantised if isinstance(self._tower, Int8Tower) else None

    def on(self, device: str) -> ClipEncoder:
        """Return the same encoder loaded onto another device."""
        return _load_again(self._require_origin(), device, self.spec, self._quantised_digest())

    def __reduce__(self) -> tuple[Any, ...]:  # weights are loaded where they are needed, not sent
        return (_load_again, (self._require_origin(), str(self.device), self.spec, self._quantised_digest()))

    def _quantised_digest(self) -> str:
        return self.quantised_tower.digest if self.quantised_tower else ""

    def _require_origin(self) -> dict[str, Any]:
        if self._origin is None:
            raise UsageError(
                "this encoder wraps a model that is only in this process's memory; load it with "
                "ClipEncoder.load to use it in another process or on another device"
            )
        return self._origin

    def __repr__(self) -> str:
        return f"ClipEncoder({self.spec}, device={str(self.device)!r}, dtype={str(self.dtype).removeprefix('torch.')})"

    def preparer(self, options: EmbedOptions) -> ImagePreparer:
        """Return a callable that turns an encoded image into this model's input pixels."""
        geometry = Geometry(
            image_size=self.spec.image_size,
            interpolation=self.spec.interpolation,
            resize_mode=self.spec.resize_mode,
            fill_color=self.spec.fill_color,
            views=options.views,
        )
        return ImagePreparer(geometry=geometry, decode=options.decode, limits=options.limits)

    def embed(
        self,
        images: Iterable[ImageInput],
        options: EmbedOptions | None = None,
        *,
        progress: bool = False,
        closer: Closer | None = None,
    ) -> EmbeddingBatch:
        """Embed images, in order.

        Parameters
        ----------
        images : iterable of bytes, path or PIL.Image
            Encoded images, paths and PIL images, freely mixed.
        options : EmbedOptions
            Batch size, views and decoding; CLIP's own centre crop where None.
        progress : bool
            Show a progress bar on standard error.
        closer : callable or None
            For ``views="adaptive"``, which needs it: a gate, from the (N, D) float32 embeddings of whole pictures to
            (N,) bool, True for each picture whose crops are embedded too.

        Returns
        -------
        EmbeddingBatch
            ``vectors`` (N, D) float32 of unit L2 norm, NaN for each image named in ``failures``; those of an image's
            further pictures, such as frames, in ``others``.

        Raises
        ------
        UsageError
            `images` is one image, not several; or there is no gate for adaptive views, or one for others.
        StorageError
            A path could not be read though it was tried again.
        """
        images = list(several(images))
        if progress:
            from rich.progress import track

            source: Iterable[ImageInput] = track(images, description="embedding")
        else:
            source = images
        batches = [batch for _, batch in self.embed_stream(source, _image_alone, options, closer=closer)]
        if not batches:
            return EmbeddingBatch(vectors=np.empty((0, self.spec.width), np.float32), encoder=self.spec.digest)
        return EmbeddingBatch.joined(batches)

    def embed_stream(
        self,
        items: Iterable[T],
        read: ReadItem[T, R],
        options: EmbedOptions | None = None,
        *,
        closer: Closer | None = None,
    ) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Embed a stream with bounded memory; see `EmbeddingPipeline.run`, and for `closer` `embed`."""
        options = options or EmbedOptions()
        size = options.resolve_batch_size(self.device, self.flops) * options.views_at_once
        run = self._tower.run_for(size, full=options.full_batches)
        return EmbeddingPipeline(
            torch.inference_mode()(run),
            self.preparer(options),
            spec=self.spec,
            device=self.device,
            options=options,
            flops=self.flops,
            closer=closer,
        ).run(items, read)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed prepared pixels on the device.

        Parameters
        ----------
        pixels : Tensor
            (N, H, W, 3) uint8, on the encoder's device.

        Returns
        -------
        Tensor
            (N, D) float32 of unit L2 norm, on the same device.
        """
        return self._tower(pixels)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str], options: EmbedOptions | None = None, *, batch_size: int = 256) -> Floats:
        """Embed texts.

        The text tower stays in main memory, and so takes nothing of the device's, unless `text_tower_to_device` was
        called; in float32 either way.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        options : EmbedOptions or None
            Those of the images, where the texts are their captions: with `full_batches` they go by them.
        batch_size : int
            Texts in a pass otherwise.

        Returns
        -------
        ndarray
            (N, D) float32 of unit L2 norm.

        Raises
        ------
        MissingExtraError
            The model's texts need transformers, which is not installed.
        WeightsError
            Its tokenizer can't be downloaded, found or read.
        """
        tokenize = self._require_texts()
        vectors = [np.empty((0, self.spec.width), np.float32)]
        filled = list(texts)
        if options is not None and options.full_batches:
            batch_size = options.resolve_batch_size(self.device, self.flops)
            filled += [""] * (-len(texts) % batch_size)
        for start in range(0, len(filled), batch_size):
            tokens = tokenize(filled[start : start + batch_size]).to(self._text_device)
            encode = self._model.encode_text
            vectors.append(F.normalize(encode(tokens).float(), dim=-1).cpu().numpy())  # type: ignore[operator]
        return np.concatenate(vectors)[: len(texts)]

    def tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the (N, L) int64 tokens that texts become; errors as of `embed_text`."""
        found: npt.NDArray[np.int64] = self._require_texts()(list(texts)).numpy()
        return found

    def text_tower_to_device(self) -> None:
        """Move the text tower to the encoder's device, for as many captions as there are images.

        Errors as of `embed_text`: an encoder that embeds no text is found out here, and not at the first caption.
        """
        self._require_texts()
        self._model.visual = None  # type: ignore[assignment]  # which is there already, in a precision of its own
        self._model.to(self.device)
        self._model.visual = None if isinstance(self._tower, Int8Tower) else self.image_tower  # type: ignore[assignment]
        self._text_device = self.device

    def _require_texts(self) -> Callable[[Sequence[str]], torch.Tensor]:
        """The tokenizer, of an encoder that can embed texts."""
        if self._tokenizer is None:
            raise UsageError("this encoder was made without a tokenizer; load it with ClipEncoder.load")
        if isinstance(self._model, ImageOnly):
            raise self._model.reason
        return self._tokenizer.make() if isinstance(self._tokenizer, LazyTokenizer) else self._tokenizer

    @property
    def image_tower(self) -> torch.nn.Module:
        """The image tower, on the device in the encoder's precision: normalised pixels -> unnormalised embeddings.

        `UsageError` in int8, which torch does not run.
        """
        if isinstance(self._tower, Int8Tower):
            raise UsageError("this encoder's image tower is in int8, and not a module of torch; load it in fp32")
        return self._tower.visual

    @property
    def logit_scale(self) -> float:
        """The factor that CLIP was trained to put on cosines before its softmax."""
        return float(self._model.logit_scale.exp())  # type: ignore[operator]


def _load_again(origin: dict[str, Any], device: str, spec: EncoderSpec, quantised: str = "") -> ClipEncoder:
    if quantised:
        require_processor(resolve_device(device))
        tower = kept_tower(quantised)
    encoder = ClipEncoder.load(device=device, **origin)
    if encoder.spec != spec:
        raise EncoderMismatchError(
            f"{origin['model']} was {spec} and is now {encoder.spec}; its files have changed: load it anew everywhere"
        )
    return encoder.quantised(tower) if quantised else encoder


def _image_alone(image: ImageInput) -> tuple[None, ImageInput]:
    return None, image
