"""Puts weights into a model, all or none, and says what keeps them from fitting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from safetyfilter.embed.clip.towers import ImageOnly
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import WeightsError

State = Mapping[str, torch.Tensor]

_POSITIONS = ("positional_embedding", "pos_embed")
_POSITION_IDS = "text.transformer.embeddings.position_ids"
_LOGITS = ("logit_scale", "logit_bias")
_SHOWN = 3
_LONGEST_NAME = 100


def fit(state: State, model: torch.nn.Module, architecture: str, *, published: bool) -> None:
    """Put weights into a model.

    Parameters
    ----------
    state : mapping of str to Tensor
        The weights by name, as `read_checkpoint` gives them.
    model : Module
        An open_clip model, or `ImageOnly`, in float32.
    architecture : str
        Its name, for errors.
    published : bool
        True for weights that open_clip lists with this architecture: these are put in as open_clip does it, their
        positional embeddings resampled where the architecture's are of another size.

    Raises
    ------
    WeightsError
        They are not this model's, weight for weight.
    """
    _check_layout(state)
    converted = _as_named_here(state, model)
    if published:
        open_clip.model.resize_pos_embed(converted, model)
        open_clip.model.resize_text_pos_embed(converted, model)
        if "logit_bias" not in converted and getattr(model, "logit_bias", None) is not None:
            converted["logit_bias"] = torch.zeros(model.logit_bias.shape)  # type: ignore[arg-type]
    expected = model.state_dict()
    if isinstance(model, ImageOnly):
        texts = {n: value for n, value in converted.items() if n not in expected and n.startswith(("text", "logit_"))}
        converted = {name: value for name, value in converted.items() if name not in texts}
        _check_fit(converted, expected, architecture)
        model.keep(texts)
    else:
        _check_fit(converted, expected, architecture)
    for name, value in converted.items():
        converted[name] = _own(value, expected[name].dtype)
    model.load_state_dict(converted, strict=not isinstance(model, ImageOnly), assign=True)


def _own(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight as a model computes with it, the same tensor where that is possible: a copy takes as much again.

    Of a piece of a larger array, a copy is kept instead of all of that.
    """
    value = value.detach()
    if value.layout is not torch.strided or value.is_quantized:
        value = value.dequantize() if value.is_quantized else value.to_dense()
    value = value.to(dtype).contiguous()
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def check_finite(model: torch.nn.Module) -> None:
    """Raise `WeightsError` where a weight is not a finite number.

    >>> layer = torch.nn.Linear(1, 1)
    >>> check_finite(layer)
    >>> _ = layer.bias.data.fill_(float("nan"))
    >>> check_finite(layer)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.WeightsError: 1 of 2 arrays of weights hold NaN or infinite numbers (bias); take weights that \
were saved before the training failed
    """
    arrays = dict(model.state_dict())
    bad = [name for name, value in arrays.items() if not _is_finite(name, value)]
    if bad:
        raise WeightsError(
            f"{len(bad)} of {len(arrays)} arrays of weights hold NaN or infinite numbers ({_some(bad)}); take weights "
            "that were saved before the training failed"
        )


def _is_finite(name: str, value: torch.Tensor) -> bool:
    if not value.is_floating_point():
        return True
    if bool(value.sum().isfinite()):  # as it is in nearly all, and three times as quick
        return True
    if name.endswith("mask"):  # an attention mask is minus infinity where it hides
        return not bool(value.isnan().any())
    return bool(value.isfinite().all())


def _check_layout(state: State) -> None:
    """Raise `WeightsError` for weights that are known to be another tool's, or a part."""
    if adapters := [name for name in state if "lora_" in name.lower()]:
        raise WeightsError(
            f"it holds LoRA adapters ({_some(adapters)}); merge them into the model's weights and save these"
        )
    if any(name.startswith(("vision_model.", "text_model.")) or name == "visual_projection.weight" for name in state):
        raise WeightsError(
            "it is in the layout of transformers, not of open_clip; take the model's open_clip file, usually "
            "open_clip_model.safetensors or open_clip_pytorch_model.bin"
        )


def _as_named_here(state: State, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights under the model's own names and in its shapes, as open_clip's own loading has them."""
    converted: dict[str, torch.Tensor] = dict(open_clip.convert.convert_state_dict(model, dict(state)))
    if "positional_embedding" in converted and not hasattr(model, "positional_embedding"):
        converted = open_clip.model.convert_to_custom_text_state_dict(converted)
    for name in _LOGITS:
        logit = getattr(model, name, None)
        if name in converted and isinstance(logit, torch.Tensor) and converted[name].numel() == logit.numel():
            converted[name] = converted[name].reshape(logit.shape)
    own = model.state_dict()
    computed = {name for name, _ in model.named_buffers()} | {_POSITION_IDS}  # archives hold those too
    return {name: value for name, value in converted.items() if name in own or name not in computed}


def _check_fit(state: State, expected: State, architecture: str) -> None:
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    shapes = {n: (tuple(state[n].shape), tuple(e.shape)) for n, e in expected.items() if n in state}
    other = [name for name, (came, wanted) in shapes.items() if came != wanted]
    if not missing and not extra and not other:
        return
    fitting = list(architectures_of(state))
    remedy = f"load it as {' or '.join(fitting)}" if fitting else "name the architecture that it was trained as"
    if not missing and not extra and all(name.endswith(_POSITIONS) for name in other):
        (came, wanted) = shapes[other[0]]
        raise WeightsError(
            f"its {other[0]} has {came[-2]} places, and that of {architecture} {wanted[-2]}: it was trained on "
            f"pictures or texts of another size; {remedy}"
        )
    faults = [f"{name} is {came}, not {wanted}" for name in other[:1] for came, wanted in (shapes[name],)]
    faults += [f"it lacks {len(missing)} of {len(expected)} weights ({_some(missing)})"] if missing else []
    faults += [f"it has {len(extra)} more ({_some(extra)})"] if extra else []
    raise WeightsError(f"its weights are not those of {architecture}: {'; '.join(faults)}. If it is whole, {remedy}")


def architectures_of(state: State) -> Iterator[str]:
    """Yield open_clip's names of the architectures whose image transformer is of the shape of these weights.

    >>> tower = {"visual.conv1.weight": torch.empty(384, 3, 32, 32), "visual.proj": torch.empty(384, 384),
    ...          "visual.positional_embedding": torch.empty(50, 384)}
    >>> blocks = {f"visual.transformer.resblocks.{n}.ln_1.bias": torch.empty(384) for n in range(12)}
    >>> list(architectures_of(tower | blocks))
    ['ViT-S-32']
    """
    shape = {
        name: tuple(state[f"visual.{name}"].shape)
        for name in ("conv1.weight", "positional_embedding", "proj")
        if f"visual.{name}" in state
    }
    if len(shape) < 3 or len(shape["conv1.weight"]) != 4:
        return
    layers = len({name.split(".")[3] for name in state if name.startswith("visual.transformer.resblocks.")})
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
        if vision.timm_model_name or isinstance(vision.image_size, list | tuple) or vision.layers != layers:
            continue
        places = (vision.image_size // vision.patch_size) ** 2 + 1
        if (
            shape["conv1.weight"] == (vision.width, 3, vision.patch_size, vision.patch_size)
            and shape["positional_embedding"] == (places, vision.width)
            and shape["proj"] == (vision.width, config["embed_dim"])
        ):
            yield name


def _some(names: Sequence[str]) -> str:
    return ", ".join(name[:_LONGEST_NAME] for name in names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
