"""Loading, saving and changing the transformer's files: any published layout in and out, one tensor at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeGuard, get_args

import torch
from torch import Tensor, nn

from hv15.choices import PublishedLayout, WeightFormat
from hv15.errors import UserError
from hv15.models.dit import DiT
from hv15.models.dit_config import DiTConfig
from hv15.models.dit_sizes import layout_of, read_config
from hv15.models.layouts import reading_recipes, writing_recipes
from hv15.models.weights.checkpoint import (
    Checkpoint,
    check_finite,
    check_keys,
    load_into,
    open_checkpoint,
    refuse_shapes,
)
from hv15.models.weights.fp8_files import WeightReader
from hv15.models.weights.fp8_writer import Fp8Writer
from hv15.models.weights.patches import Patch, check_targets
from hv15.models.weights.quantised import Fp8Linear, QuantisedLinear, ScaledCodes, check_weight_format, replace_linears
from hv15.models.weights.relative_error import RelativeError
from hv15.models.weights.writer import write_checkpoint, write_shards
from hv15.records.metadata import MODEL_SIZES


def load_dit(
    path: Path | str,
    *,
    config: DiTConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    quantize: WeightFormat | None = None,
    merge: Sequence[Patch] = (),
    host_blocks: int = 0,
    super_resolution: bool = False,
) -> DiT:
    """Load the transformer from a file or folder in the official, ComfyUI or diffusers layout; frozen, in eval mode.

    Tensors are streamed: each is read, changed, cast or quantised, and moved to its device before the next is read.

    Args:
        config: sizes; None reads them from the file.
        dtype: of everything that is not quantised, and of the activations. None keeps the file's, including fp8.
        quantize: number format of the blocks' linear layers; None means `dtype`. With fp8, weights that are fp8 in the
            file stay as they are.
        merge: changes of weights, applied one after another (`hv15.lora.merge_patch`).
        host_blocks: the number of blocks, counted from the end, that are left on the CPU.
        super_resolution: load a transformer of super resolution, and refuse one of t2v or i2v; else the other way.

    Raises:
        UserError: the file is missing, damaged, a pickle, or of another model; tensors are missing, unknown, of another
            shape, or NaN.
    """
    source = _Source(Path(path), config, device, merge, super_resolution=super_resolution)
    dit, in_fp8 = source.dit, source.in_fp8
    if quantize is not None:
        check_weight_format(quantize, device)
        replace_linears(dit, quantize, is_block_linear)
    elif dtype is None:
        replace_linears(dit, "fp8", lambda name: is_block_linear(name) and f"{name}.weight" in in_fp8)
    if in_fp8 and dtype is None:
        dtype = source.reader.plain_dtype
    on_meta = torch.device(device).type == "meta"
    kept = max(dit.config.num_blocks - (0 if on_meta else host_blocks), 0)

    def tensors() -> Iterator[tuple[str, Tensor | ScaledCodes]]:
        for key in source.recipes:
            layer = dit.get_submodule(key.rpartition(".")[0])
            yield key, source.make(key, dtype, keep_codes=isinstance(layer, Fp8Linear))

    load_into(
        dit,
        tensors(),
        dtype=dtype,
        device=device,
        kept_on_host=lambda key: block_number(key) >= kept,
        where=source.checkpoint.path,
    )
    return dit


def save_dit(
    dit: DiT,
    path: Path | str,
    *,
    layout: PublishedLayout = "official",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    fp8: Fp8Writer | None = None,
) -> None:
    """Write the transformer to one .safetensors file in any of the layouts, one tensor at a time, atomically.

    Args:
        dit: must not be quantised.
        dtype: of the written tensors; None keeps their own.
        metadata: written in addition to the sizes.
        fp8: writes the blocks' linear layers in fp8 with scales.

    Raises:
        UserError: an unknown layout, or the file cannot be written.
    """
    if any(isinstance(layer, QuantisedLinear) for layer in dit.modules()):
        raise ValueError("a quantised transformer cannot be saved: use merge_dit, which makes files from files")
    state: Mapping[str, Tensor] = dit.state_dict()
    described = {key: tensor.to("meta") for key, tensor in state.items()}
    _write(Path(path), dit.config, layout, described, state.__getitem__, dtype, metadata, fp8)


def merge_dit(
    path: Path | str,
    output: Path | str,
    merge: Sequence[Patch],
    *,
    layout: PublishedLayout = "official",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    fp8: Fp8Writer | None = None,
    shard_bytes: int | None = None,
) -> float:
    """Write a copy of a transformer's file with changed weights, with only one tensor in memory at a time.

    Args:
        output: a file, or with `shard_bytes` a folder.
        layout: of the written file.
        dtype: of the written tensors. None keeps the file's; fp8 tensors are written in the file's unquantised dtype.
        metadata: written in addition to the sizes.
        fp8: writes the blocks' linear layers in fp8 with scales.
        shard_bytes: the most bytes in one file of several.

    Returns:
        The relative error of the changed weights by their rounding (Frobenius norm); not that of fp8, which adds it up.

    Raises:
        UserError: as `load_dit` and `save_dit`.
    """
    source = _Source(Path(path), None, "cpu", merge)

    def own(key: str) -> torch.dtype:
        if fp8 is not None and is_block_linear(key):
            return torch.float32  # rounded once, to fp8
        if dtype is not None:
            return dtype
        found = source.dtype(key)
        return found if found.itemsize > 1 else source.reader.plain_dtype

    changed = {f"{module}.weight" for patch in merge for module in patch.shapes}
    rounding = RelativeError()

    def tensor(key: str) -> Tensor:
        value = source.make(key, torch.float32, keep_codes=False)
        assert isinstance(value, Tensor)
        check_finite(value, key, source.checkpoint.path)
        rounded = value.to(own(key))
        if key in changed:
            rounding.add(rounded, value)
        return rounded

    shapes = {key: value.shape for key, value in source.dit.state_dict().items()}
    described = {key: torch.empty(shape, dtype=own(key), device="meta") for key, shape in shapes.items()}
    _write(Path(output), source.dit.config, layout, described, tensor, dtype, metadata, fp8, shard_bytes)
    return rounding.value


class LinearWeights:
    """The weights of a transformer's linear layers in a file of any layout, read one at a time.

    Raises:
        UserError: as `load_dit`.
    """

    def __init__(self, path: Path | str) -> None:
        self._source = _Source(Path(path), None, "cpu", ())
        modules = self._source.dit.named_modules()
        self.shapes = {name: (layer.out_features, layer.in_features) for name, layer in modules if _is_linear(layer)}
        """(out, in) by official name, in the model's order."""

    def __call__(self, module: str) -> Tensor:
        """Return the weight (out, in) of a layer by its official name, in fp32.

        Raises:
            UserError: the model has no such layer, or the file cannot be read.
        """
        path = self._source.checkpoint.path
        if module not in self.shapes:
            raise UserError.at(path, f"has no layer {module}", hint="use a LoRA for this model: this one has others")
        value = self._plain(f"{module}.weight")
        check_finite(value, module, path)
        return value

    def others_that_differ(self, other: LinearWeights) -> list[str]:
        """Return the names of the tensors besides these weights (biases, norms, ...) in which two files differ."""
        linear = {f"{name}.weight" for name in self.shapes}
        names = [key for key in self._source.recipes if key not in linear and key in other._source.recipes]
        return [key for key in names if not torch.equal(self._plain(key), other._plain(key))]

    def _plain(self, key: str) -> Tensor:
        value = self._source.make(key, torch.float32, keep_codes=False)
        assert isinstance(value, Tensor)
        return value.float()


class _Source:
    """The transformer's tensors in a file, made one at a time under their official names.

    Args:
        device: where patches are computed.
        super_resolution: see `read_config`.

    Raises:
        UserError: the file cannot be read or is another model, or a patch does not fit it.
    """

    def __init__(
        self,
        path: Path,
        config: DiTConfig | None,
        device: torch.device | str,
        patches: Sequence[Patch],
        *,
        super_resolution: bool | None = None,
    ) -> None:
        self.checkpoint, self.device, self.patches = open_checkpoint(path), torch.device(device), patches
        layout, self.prefix = layout_of(self.checkpoint)
        with torch.device("meta"):
            self.dit = DiT(config or read_config(self.checkpoint, super_resolution=super_resolution))
        """The network on the meta device."""
        self.reader = WeightReader(self.checkpoint, self.prefix, device)
        self.recipes = reading_recipes(layout, self.dit.state_dict())
        needed = dict.fromkeys(source for recipe in self.recipes.values() for source in recipe.sources)
        check_keys(needed, self.reader.names, self.checkpoint.path, what=f"transformer ({layout} layout)")
        for recipe in self.recipes.values():
            _check_rows(self.checkpoint, [self.prefix + source for source in recipe.sources], recipe.parts)
        wrong = [
            f"{key} is {list(found)} instead of {list(value.shape)}"
            for key, value in self.dit.state_dict().items()
            if (found := self._shape(key)) != value.shape
        ]
        refuse_shapes(wrong, self.checkpoint.path)  # before a patch is applied or a part of a file is written
        for patch in patches:
            check_targets(self.dit, patch.shapes, name=patch.name)
        self.in_fp8 = {key for key, recipe in self.recipes.items() if any(map(self.reader.is_fp8, recipe.sources))}
        """Names of the tensors that are fp8 in the file."""

    def _shape(self, key: str) -> torch.Size:
        """Return the shape of the tensor that the file's tensors make."""
        with torch.device("meta"):
            return self.recipes[key].make(lambda name: torch.empty(self.checkpoint.shape(self.prefix + name))).shape

    def dtype(self, key: str) -> torch.dtype:
        """Return the dtype of a tensor in the file."""
        return self.checkpoint.dtype(self.prefix + self.recipes[key].sources[0])

    def make(self, key: str, dtype: torch.dtype | None, *, keep_codes: bool) -> Tensor | ScaledCodes:
        """Make a tensor from those of the file, in fp32 if a patch changes it, else in the file's dtype.

        Args:
            dtype: of what is dequantised from fp8; None means that of the rest of the file.
            keep_codes: keep an fp8 weight in fp8 if no patch changes it.
        """
        module, _, name = key.rpartition(".")
        patches = [patch for patch in self.patches if name == "weight" and module in patch.shapes]
        value = self.reader.make(self.recipes[key], torch.float32 if patches else dtype)
        if isinstance(value, ScaledCodes):
            if keep_codes and not patches:
                return value
            plain = torch.float32 if patches else dtype or self.reader.plain_dtype
            value = value.to(self.device).dequantised(plain)
        if value.device.type != "meta":
            for patch in patches:
                value = patch(module, value.to(self.device, torch.float32))
        return value


def _write(
    path: Path,
    config: DiTConfig,
    layout: PublishedLayout,
    described: Mapping[str, Tensor],
    tensor: Callable[[str], Tensor],
    dtype: torch.dtype | None,
    metadata: Mapping[str, str] | None,
    fp8: Fp8Writer | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Write official tensors in any layout: `described` has them on the meta device, `tensor` returns one's values."""
    if layout not in get_args(PublishedLayout):
        raise UserError(f"unknown layout {layout!r}", hint=f"use one of {', '.join(get_args(PublishedLayout))}")
    recipes = writing_recipes(layout, described)

    def cast(value: Tensor) -> Tensor:
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    shapes = {key: cast(recipe.make(described.__getitem__)) for key, recipe in recipes.items()}
    matrices = {key for key in recipes if key.endswith(".weight") and shapes[key].ndim == 2}
    inside = {key for key in matrices if is_block_linear(recipes[key].sources[0])} if fp8 is not None else set()
    told = {**(metadata or {}), "format": "pt", MODEL_SIZES: json.dumps(asdict(config))}

    def plain(key: str) -> Tensor:
        value = recipes[key].make(tensor)
        return (value if key in inside else cast(value)).cpu()

    make: Callable[[str], Tensor] = plain
    if fp8 is not None:
        shapes, make = fp8.described(shapes, inside), fp8.making(plain, inside)
    if shard_bytes is None:
        write_checkpoint(path, shapes, make, told)
    else:
        stem = "diffusion_pytorch_model" if layout == "diffusers" else "model"
        write_shards(path, stem, shapes, make, told, shard_bytes=shard_bytes)


def checkpoint_dtype(path: Path | str) -> torch.dtype:
    """Return the dtype of most of a checkpoint's bytes, from the headers alone; float8 for a file in fp8.

    Raises:
        UserError: the file is missing, damaged or not safetensors.
    """
    checkpoint = open_checkpoint(Path(path))
    sizes: Counter[torch.dtype] = Counter()
    for key in checkpoint:
        dtype = checkpoint.dtype(key)
        sizes[dtype] += dtype.itemsize * torch.Size(checkpoint.shape(key)).numel()
    return sizes.most_common(1)[0][0]


def block_number(name: str) -> int:
    """Return the number of the block that a module or tensor belongs to; -1 outside the blocks."""
    match = re.match(r"double_blocks\.(\d+)\.", name)
    return int(match[1]) if match else -1


def is_block_linear(name: str) -> bool:
    """Whether a linear layer can be quantised: the modulations, attention and MLPs of the blocks."""
    return block_number(name) >= 0


def _is_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear)


def _check_rows(checkpoint: Checkpoint, sources: list[str], parts: int) -> None:
    """Refuse tensors that cannot be joined along rows and divided into equal parts."""
    shapes = [checkpoint.shape(source) for source in sources]
    if any(not shape or shape[0] % parts or shape[1:] != shapes[0][1:] for shape in shapes):
        found = ", ".join(f"{source} {list(shape)}" for source, shape in zip(sources, shapes, strict=True))
        raise UserError.at(
            checkpoint.path, f"tensors of another shape: {found}", hint="this file belongs to another model"
        )
