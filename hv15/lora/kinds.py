"""The kinds of changes in LoRA files, recognised by tensor names alone. Does not need torch.

A key is a module's name, a dot and a part: `lora_unet_double_blocks_0_img_attn_q` + `.` + `lora_down.weight`.

| kind | parts | what hv15 can do with it |
|---|---|---|
| LoRA, LoHa, LoKr, full difference | lora_*, hada_*, lokr_*, diff | everything; differences are not trained |
| DoRA of a LoRA by the base weight's norms | these, and base_dora_scale (in files: dora_scale) | everything |
| other DoRA of a LoRA, LoHa or LoKr | these, and dora_scale or lora_magnitude_vector | sampling and merging |
| GLoRA, OFT, BOFT | a1, a2, b1, b2; oft_blocks, rescale | sampling and merging, with lycoris-lora |
| all others, for example (IA)^3 | | refused by `refuse_unusable` |

hv15 trains the first kind of DoRA, because ComfyUI takes every magnitude of a row to be relative to the norm of the
base weight's row. LyCORIS and PEFT take the norm of the changed weight. All of them call the tensor dora_scale, so a
file of hv15 says in its metadata which one it is (`DORA_NORM`), and in memory the tensors have different names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.names import module_layout
from hv15.records.metadata import DORA_NORM

ADAPTER_PARTS: tuple[tuple[str, ...], ...] = (
    ("lora_down.weight", "lora_up.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("lokr_w1", "lokr_w2"),
    ("diff",),
)
"""The parts that each kind of adapter needs. In LoKr, `lokr_w1_a` and `lokr_w1_b` may replace `lokr_w1`."""
MAGNITUDE = "dora_scale"
"""Magnitudes of a DoRA relative to the norms of the changed weight; in files also those of the other kind."""
BASE_MAGNITUDE = "base_dora_scale"
"""Magnitudes relative to the norms of the base weight's rows."""
GLORA_PARTS = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
OFT_PARTS = ("oft_blocks", "rescale")
_DEPENDENT = {MAGNITUDE, *GLORA_PARTS, *OFT_PARTS}

_KEY = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_down\.weight|lora_up\.weight|lora_[AB]\.(?:[A-Za-z]\w*\.)?weight|alpha|diff|"
    r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|(?:base_)?dora_scale|lora_magnitude_vector(?:\.[A-Za-z]\w*)?(?:\.weight)?|"
    r"oft_blocks|rescale|[ab][12]\.weight)"
)
_PART_NAMES = {
    "lora_A": "lora_down.weight",
    "lora_B": "lora_up.weight",
    "lora_magnitude_vector": MAGNITUDE,
}
"""PEFT's names of parts, up to the first dot, and kohya's."""

_UNUSABLE = {
    ("on_input", "ia3_l"): ("an (IA)^3", "lycoris-lora itself cannot load it"),
    ("lambda_layer", "q_layer.weight", "p_layer.weight"): ("a T-LoRA", "its effect depends on the noise level"),
    ("oft_R.weight", "oft_r", "boft_R", "boft_s"): ("a PEFT OFT", "only lycoris-lora's OFT is supported"),
    ("vera_lambda_b", "vera_lambda_d"): ("a VeRA", "the matrices that all its layers share are not in the file"),
    ("lora_E", "ranknum"): ("an AdaLoRA", "it weights each rank separately"),
    ("diff_b", "lora_B.bias", "lora_up.bias"): ("changes of biases", "only changes of weights are supported"),
    ("w_norm", "b_norm"): ("changes of norms", "only changes of linear layers are supported"),
    ("set_weight", "reshape_weight"): ("whole weights", "only changes of weights are supported"),
    ("lora_mid.weight", "hada_t1", "hada_t2", "lokr_t1", "lokr_t2", "bm.weight"): (
        "changes of convolutions",
        "the transformer has none",
    ),
}
"""Kinds of files that cannot be used, by the parts that identify them: what they are, and why."""


def group_parts(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group the tensors of a file by module.

    Returns:
        {module: {part: key}}, with PEFT's names of parts replaced by kohya's; and the keys that are not of a LoRA.

    Raises:
        UserError: two keys mean the same tensor.
    """
    modules: dict[str, dict[str, str]] = {}
    unknown = []
    for key in keys:
        match = _KEY.fullmatch(key)
        if match is None:
            unknown.append(key)
            continue
        part = _PART_NAMES.get(match["part"].split(".")[0], match["part"])
        group = modules.setdefault(match["module"], {})
        if part in group:
            raise UserError(f"LoRA: {group[part]} and {key} mean the same tensor", hint="export the LoRA again")
        group[part] = key
    return modules, unknown


def detect_lora_layout(keys: Iterable[str]) -> LoRALayout:
    """Return the layout of a LoRA's tensor names: kohya, comfyui, diffusers or official.

    Raises:
        UserError: the kind cannot be used, the names are unknown, or belong to several layouts.
    """
    keys = list(keys)
    refuse_unusable(keys)
    modules, _ = group_parts(keys)
    layouts = {layout for name in modules if (layout := module_layout(name)) is not None}
    if "comfyui" in layouts:
        layouts.discard("kohya")  # lora_unet_..._img_attn_proj belongs to both
    if not layouts:
        raise unknown_keys(keys, len(keys))
    if len(layouts) > 1:
        raise UserError(
            f"LoRA: names of several layouts in one file: {', '.join(sorted(layouts))}",
            hint="export it again in one layout: the file holds two LoRAs, or the same one twice",
        )
    return layouts.pop()


def refuse_unusable(keys: Iterable[str]) -> None:
    """Refuse the kinds of changes that can be neither applied, merged nor converted.

    Raises:
        UserError: a key belongs to such a kind.
    """
    endings = {tuple(f".{part}" for part in parts): what_why for parts, what_why in _UNUSABLE.items()}
    for key in keys:
        for ending, (what, why) in endings.items():
            if key.endswith(ending):
                raise UserError(
                    f"LoRA: the file holds {what} ({key}), which hv15 cannot use: {why}",
                    hint="merge it into the model with the program that made it, or train a LoRA, LoHa, LoKr or DoRA",
                )


def has_base_norms(metadata: Mapping[str, str]) -> bool:
    """Whether a file's metadata says that its DoRA magnitudes are relative to the norms of the base weight's rows."""
    return metadata.get(DORA_NORM) == "base"


def depends_on_base(parts: Iterable[str]) -> bool:
    """Whether a module's change cannot be computed without the weight that it changes, nor converted, by its parts."""
    return any(part in _DEPENDENT for part in parts)


def kind_of(parts: Iterable[str]) -> str:
    """Return the kind of change of a module with these parts, for messages: "a LoRA", "a LoHa", "a DoRA", ..."""
    present = set(parts)
    if present & {MAGNITUDE, BASE_MAGNITUDE}:
        return "a DoRA"
    marks = {"lora_": "a LoRA", "hada_": "a LoHa", "lokr_": "a LoKr", "diff": "a full difference", "oft_": "an OFT"}
    for mark, kind in marks.items():
        if any(part.startswith(mark) for part in present):
            return kind
    return "a GLoRA" if present & set(GLORA_PARTS) else "no change"


def count_modules(keys: Iterable[str]) -> int:
    """Return the number of modules that a LoRA file with these tensor names changes.

    Raises:
        UserError: two keys mean the same tensor.
    """
    return len(group_parts(keys)[0])


def unknown_keys(keys: list[str], total: int) -> UserError:
    """Return the error for tensors that belong to no part of the transformer.

    Args:
        keys: of these tensors.
        total: the number of tensors in the file.
    """
    if not total:
        return UserError("LoRA: a file without tensors", hint="check that its export finished")
    if (family := other_family(keys)) is not None:
        return UserError(
            f"LoRA: {len(keys)} of {total} tensors belong to no part of HunyuanVideo 1.5, first {', '.join(keys[:3])}: "
            f"it looks like {family}",
            hint="use a LoRA that was trained on HunyuanVideo 1.5; those of other models do not fit it",
        )
    return UserError(
        f"LoRA: {len(keys)} of {total} tensors belong to no part of HunyuanVideo 1.5, first {', '.join(keys[:3])}",
        hint="use a LoRA for this model in a known layout, with names such as "
        "lora_unet_double_blocks_0_img_attn_q.lora_down.weight, "
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight, "
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight or double_blocks.0.img_attn_q.lora_A.weight",
    )


_FAMILIES = (
    (r"single_transformer_blocks[._]|single_blocks[._]", "a LoRA for HunyuanVideo 1.0 or Flux"),
    (r"(^|\.|unet_)blocks[._]\d+[._](self_attn|cross_attn|ffn)[._]", "a LoRA for Wan"),
    (r"transformer_blocks[._]\d+[._](attn1|attn2|audio_)", "a LoRA for LTX-Video or a diffusers U-Net"),
    (r"transformer_blocks[._]\d+[._](img_mlp|txt_mlp|img_mod|txt_mod)[._]", "a LoRA for Qwen-Image"),
    (r"(down|up|input|output|middle|mid)_blocks?[._]", "a LoRA for Stable Diffusion"),
    (r"^lora_te\d*_|^text_encoder", "a LoRA that also changes a text encoder"),
    (r"^(de|en)coder\.conv_in|^(de|en)coder\.(mid|up|down)", "a VAE"),
)
"""Patterns in names of tensors, and what has such names."""


def other_family(keys: Iterable[str]) -> str | None:
    """Return what tensors that belong to no part of this model seem to be of; None if that is not known."""
    keys = [*keys]
    return next((name for pattern, name in _FAMILIES if any(re.search(pattern, key) for key in keys)), None)


def changed_twice(module: str, name: str) -> UserError:
    """Return the error about a file in which a second part, of this name, changes a module."""
    return UserError(
        f"LoRA: {module} is changed twice, the second time by {name}",
        hint="export it again in one layout: the file mixes two layouts of one LoRA",
    )
