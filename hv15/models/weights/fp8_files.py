"""Reads checkpoints in which some weights are fp8, as in ComfyUI's files.

`X.weight` is float8, and the unquantised weight is `X.weight * scale` with one fp32 scale, or one for each row. The
scale is the tensor `X.scale_weight` in older files, which have a marker tensor `scaled_fp8`, or `X.weight_scale` in
newer ones, in which a JSON text `X.comfy_quant` or the metadata `_quantization_metadata` names the format. Scales for
activations (`X.scale_input`, `X.input_scale`) are not used, because hv15 does not quantise activations with constants
from a file. A float8 weight without a scale was simply cast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.models.weights.checkpoint import Checkpoint
from hv15.models.weights.quantised import ScaledCodes
from hv15.models.weights.recipe import Recipe
from hv15.records.json_values import as_object, parse_object

_SCALES = (".scale_weight", ".weight_scale")
_UNUSED = (".scale_input", ".input_scale", ".comfy_quant")
_MARKER = "scaled_fp8"
_OTHER_FORMATS = (".weight_scale_2", ".pre_quant_scale", ".SCB", ".absmax", ".quant_map")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_HINT = "use the bf16 or fp8-scaled file of the same model, and choose nf4 or int8 by the setting quantize"


class WeightReader:
    """The tensors of a checkpoint whose names have a prefix. Scales are read together with their fp8 weights.

    Args:
        device: CPU, or meta for tensors without data.

    Raises:
        UserError: the checkpoint is quantised in another way.
    """

    def __init__(self, checkpoint: Checkpoint, prefix: str, device: torch.device | str = "cpu") -> None:
        self.checkpoint, self.prefix = checkpoint, prefix
        self.device = "meta" if torch.device(device).type == "meta" else "cpu"
        names = [key.removeprefix(prefix) for key in checkpoint if key.startswith(prefix)]
        self._scales = {
            name.removesuffix(suffix) + ".weight": name for suffix in _SCALES for name in names if name.endswith(suffix)
        }
        extra = {*self._scales.values(), *(name for name in names if name.endswith(_UNUSED)), _MARKER}
        self.names = [name for name in names if name not in extra]
        """Names without the prefix, without scales and markers."""
        self._check_formats(names)

    @cached_property
    def plain_dtype(self) -> torch.dtype:
        """The dtype of most tensors that are not float8, to which float8 tensors are dequantised if needed."""
        counts = Counter(
            dtype
            for name in self.names
            if (dtype := self.checkpoint.dtype(self.prefix + name)).is_floating_point and dtype.itemsize > 1
        )
        return counts.most_common(1)[0][0] if counts else torch.bfloat16

    def is_fp8(self, name: str) -> bool:
        """Whether a tensor is in float8."""
        return self.checkpoint.dtype_name(self.prefix + name).startswith("F8_")

    def make(self, recipe: Recipe, dtype: torch.dtype | None) -> Tensor | ScaledCodes:
        """Make a tensor from its sources; for an fp8 weight [out, in], or some rows of it, its codes and scales.

        Args:
            dtype: of fp8 tensors that must be dequantised because they are joined or are not matrices; None means
                `plain_dtype`.

        Raises:
            UserError: a scale has the wrong shape, or the file cannot be read.
        """
        source = recipe.sources[0]
        if len(recipe.sources) > 1 or recipe.swap:
            return recipe.make(lambda name: self._plain(name, None, dtype))
        rows = None
        if recipe.count > 1:  # read only the needed part of a fused tensor
            height = self.checkpoint.shape(self.prefix + source)[0] // recipe.count
            rows = range(recipe.index * height, (recipe.index + 1) * height)
        if self.is_fp8(source) and len(self.checkpoint.shape(self.prefix + source)) == 2:
            return self._codes(source, rows)
        return self._plain(source, rows, dtype)

    def _plain(self, name: str, rows: range | None, dtype: torch.dtype | None) -> Tensor:
        if name in self._scales:
            return self._codes(name, rows).dequantised(dtype or self.plain_dtype)
        value = self.checkpoint.tensor(self.prefix + name, rows, self.device)
        return value.to(dtype or self.plain_dtype) if self.is_fp8(name) else value

    def _codes(self, name: str, rows: range | None) -> ScaledCodes:
        codes = self.checkpoint.tensor(self.prefix + name, rows, self.device)
        if name not in self._scales:
            return ScaledCodes(codes, torch.ones(1, 1, device=self.device))
        key, height = self.prefix + self._scales[name], self.checkpoint.shape(self.prefix + name)[0]
        scale = self.checkpoint.tensor(key, device=self.device).float()
        if scale.numel() == 1:
            return ScaledCodes(codes, scale.reshape(1, 1))
        if scale.numel() != height or scale.shape[0] != height:
            raise UserError.at(
                self.checkpoint.path,
                f"{key} has the shape {list(scale.shape)}, expected one scale for "
                f"{name}, or one for each of its {height} rows",
                hint=_HINT,
            )
        scale = scale.reshape(-1, 1)
        return ScaledCodes(codes, scale if rows is None else scale[rows.start : rows.stop])

    def _check_formats(self, names: list[str]) -> None:
        path = self.checkpoint.path
        for name in names:
            if name.endswith(_OTHER_FORMATS):
                raise UserError.at(path, f"quantised weights of an unsupported kind ({name})", hint=_HINT)
        for module, found in self._declared(names):
            if found not in _FORMATS:
                raise UserError.at(path, f"{module} is quantised as {found}, which is not supported", hint=_HINT)
        for weight, scale in self._scales.items():
            if self.prefix + weight not in self.checkpoint or not self.is_fp8(weight):
                raise UserError.at(path, f"{scale} belongs to no fp8 weight", hint=_HINT)

    def _declared(self, names: list[str]) -> Iterator[tuple[str, object]]:
        """Yield (module, format) as ComfyUI's JSON texts name them."""
        try:
            stored = parse_object(self.checkpoint.metadata.get("_quantization_metadata", "{}"))
            for module, declared in as_object(stored.get("layers", {})).items():
                yield module, as_object(declared).get("format")
            for name in names:
                if name.endswith(".comfy_quant"):
                    text = bytes(self.checkpoint.tensor(self.prefix + name).tolist())
                    yield name.removesuffix(".comfy_quant"), parse_object(text).get("format")
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError.at(
                self.checkpoint.path, f"the description of its quantisation cannot be read: {error}", hint=_HINT
            ) from error
