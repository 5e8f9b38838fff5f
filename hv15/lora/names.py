"""The names of the transformer's linear layers in each LoRA layout.

A part is a unit that no layout divides further. If a layout has q, k and v in one matrix, their names end in @0, @1 and
@2, for the first, second and last third of its output rows. `#` stands for the number of the block.

hv15 uses the official checkpoint's names; kohya's are the same with `_` instead of `.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, get_args

from hv15.choices import LayerPreset, LoRALayout
from hv15.errors import UserError
from hv15.models.layouts import reading_recipes
from hv15.patterns import PatternError, Searches

Value = TypeVar("Value")

PEFT_PREFIX = "base_model.model."
"""Before every name in the files that PEFT itself saves."""

LORA_LAYOUTS: tuple[LoRALayout, ...] = get_args(LoRALayout)

# Official names and ComfyUI's. diffusers' names come from the table in hv15.models.layouts.
_BLOCK = {
    "img_mod.linear": "img_mod.lin",
    "img_attn_q": "img_attn.qkv@0",
    "img_attn_k": "img_attn.qkv@1",
    "img_attn_v": "img_attn.qkv@2",
    "img_attn_proj": "img_attn.proj",
    "img_mlp.fc1": "img_mlp.0",
    "img_mlp.fc2": "img_mlp.2",
    "txt_mod.linear": "txt_mod.lin",
    "txt_attn_q": "txt_attn.qkv@0",
    "txt_attn_k": "txt_attn.qkv@1",
    "txt_attn_v": "txt_attn.qkv@2",
    "txt_attn_proj": "txt_attn.proj",
    "txt_mlp.fc1": "txt_mlp.0",
    "txt_mlp.fc2": "txt_mlp.2",
}
BLOCK_PARTS = tuple(_BLOCK)
"""The 14 linear layers of a double block, in the model's order."""
# Outside the double blocks. hv15 does not train these, but the official trainer does by default ("all-linear").
_REFINER = {
    "self_attn_qkv@0": "self_attn.qkv@0",
    "self_attn_qkv@1": "self_attn.qkv@1",
    "self_attn_qkv@2": "self_attn.qkv@2",
    "self_attn_proj": "self_attn.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "adaLN_modulation.1": "adaLN_modulation.1",
}
_OTHER = {
    "time_in.mlp.0": "time_in.in_layer",
    "time_in.mlp.2": "time_in.out_layer",
    "time_r_in.mlp.0": "time_r_in.in_layer",
    "time_r_in.mlp.2": "time_r_in.out_layer",
    "txt_in.input_embedder": "txt_in.input_embedder",
    "txt_in.t_embedder.mlp.0": "txt_in.t_embedder.in_layer",
    "txt_in.t_embedder.mlp.2": "txt_in.t_embedder.out_layer",
    "txt_in.c_embedder.linear_1": "txt_in.c_embedder.in_layer",
    "txt_in.c_embedder.linear_2": "txt_in.c_embedder.out_layer",
    "byt5_in.fc1": "byt5_in.fc1",
    "byt5_in.fc2": "byt5_in.fc2",
    "byt5_in.fc3": "byt5_in.fc3",
    "vision_in.proj.1": "vision_in.proj.1",
    "vision_in.proj.3": "vision_in.proj.3",
    "final_layer.linear": "final_layer.linear",
    "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
}
_PREFIXED = (("double_blocks.#.", _BLOCK), ("txt_in.individual_token_refiner.blocks.#.", _REFINER), ("", _OTHER))
_COMFYUI = {prefix + part: prefix + name for prefix, table in _PREFIXED for part, name in table.items()}
_PREFIX: dict[LoRALayout, str] = {
    "kohya": "lora_unet_",
    "comfyui": "diffusion_model.",
    "diffusers": "transformer.",
    "official": "",
    "comfyui_kohya": "lora_unet_",
    "peft": PEFT_PREFIX,
}
# Prefixes of module names in files: `lycoris_` is SimpleTuner's, `lora_transformer_` OneTrainer's. ComfyUI also reads
# `transformer.` before official block names.
_READ_PREFIXES = (
    "lora_unet_",
    "lycoris_",
    "lora_transformer_",
    PEFT_PREFIX,
    "diffusion_model.",
    "transformer.",
    "",
)
_INDEX = re.compile(r"(blocks[._])(\d+)(?=[._])")
_TRAINED = re.compile(r"double_blocks\.\d+\.(?:" + "|".join(map(re.escape, _BLOCK)) + ")")


@dataclass(frozen=True)
class ModulePlace:
    """The place of a part of the model in a layout."""

    module: str
    third: int | None = None
    """The third of the module's output rows: 0, 1 or 2; None for the whole module."""
    swapped: bool = False
    """Whether the two halves of the output rows are swapped."""

    @classmethod
    def parse(cls, text: str) -> ModulePlace:
        name, _, third = text.partition("@")
        return cls(name, int(third) if third else None)


def _diffusers_place(part: str) -> ModulePlace:
    """Return diffusers' place of a part, a template with `#`, from the table of its checkpoints for block 0."""
    official = ModulePlace.parse(part)
    key = f"{official.module}.weight".replace("#", "0")
    recipe = reading_recipes("diffusers", [key])[key]
    module = recipe.sources[official.third or 0].removesuffix(".weight")
    return ModulePlace(generalise(module)[0], None, recipe.swap)


def generalise(name: str) -> tuple[str, str]:
    """Split the number of a block off: `double_blocks.7.img_mlp.0` -> (`double_blocks.#.img_mlp.0`, "7")."""
    match = _INDEX.search(name)
    if match is None:
        return name, ""
    return f"{name[: match.start()]}{match[1]}#{name[match.end() :]}", match[2]


# Template of the part (official, with @third) -> its place in each dotted layout.
_PLACES: dict[str, dict[LoRALayout, ModulePlace]] = {
    part: {
        "official": ModulePlace.parse(part),
        "kohya": ModulePlace.parse(part),
        "comfyui": ModulePlace.parse(name),
        "comfyui_kohya": ModulePlace.parse(name),
        "diffusers": _diffusers_place(part),
        "peft": _diffusers_place(part),
    }
    for part, name in _COMFYUI.items()
}


def _read_table() -> dict[str, dict[str, ModulePlace]]:
    """Return {flattened module template of any layout: {part: place}}."""
    table: dict[str, dict[str, ModulePlace]] = {}
    for part, places in _PLACES.items():
        for place in places.values():
            table.setdefault(place.module.replace(".", "_"), {})[part] = place
    return table


_READ = _read_table()


def place_of(part: str, layout: LoRALayout) -> ModulePlace:
    """Return the place, with dotted names, of a part (an official module name, with @third in the refiner) in a layout.

    Raises:
        KeyError: no such part.
    """
    template, index = generalise(part)
    place = _PLACES[template][layout]
    return ModulePlace(place.module.replace("#", index), place.third, place.swapped)


def layout_places(layout: LoRALayout) -> list[str]:
    """Return the dotted names of a layout's modules, without prefix and with `#` for the number of a block."""
    return list(dict.fromkeys(places[layout].module for places in _PLACES.values()))


def written_name(module: str, layout: LoRALayout) -> str:
    """Return a module's name in the layout's files from its dotted name: with the prefix, and flattened as kohya's."""
    return _PREFIX[layout] + (module.replace(".", "_") if layout in ("kohya", "comfyui_kohya") else module)


def kohya_name(module: str) -> str:
    """`double_blocks.0.img_attn_q` -> `lora_unet_double_blocks_0_img_attn_q`."""
    return written_name(module, "kohya")


def find_parts(name: str) -> dict[str, ModulePlace] | None:
    """Return the parts of the model, with their places, that a module name in a file means; None if it is unknown."""
    for prefix in _READ_PREFIXES:
        if not name.startswith(prefix) or "#" in name:  # in the table, # stands for a block's number
            continue
        template, index = generalise(name.removeprefix(prefix))
        parts = _READ.get(template.replace(".", "_"))
        if parts is not None:
            return {part.replace("#", index): replace(place, module=name) for part, place in parts.items()}
    return None


def module_layout(name: str) -> LoRALayout | None:
    """Return the layout of a module name in a file; None if it is unknown.

    Names that kohya and ComfyUI share (`lora_unet_double_blocks_0_img_attn_proj`) are taken to be kohya's. Both of
    ComfyUI's spellings are `comfyui`.
    """
    parts = find_parts(name)
    if parts is None:
        return None
    prefix = next(prefix for prefix in _READ_PREFIXES if name.startswith(prefix))
    if prefix == PEFT_PREFIX:
        return "peft"
    flat = generalise(name.removeprefix(prefix))[0].replace(".", "_")
    places = _PLACES[generalise(next(iter(parts)))[0]]
    if flat == places["diffusers"].module.replace(".", "_"):
        return "diffusers"
    if prefix in ("diffusion_model.", "transformer.") or flat != places["official"].module.replace(".", "_"):
        return "comfyui"
    return "official" if prefix == "" else "kohya"


def whole_module(name: str) -> str | None:
    """Return the official name of the linear layer that a module name in a file means.

    None if the name is unknown, or if that layout joins or divides the layer or reorders its rows.
    """
    parts = find_parts(name) or {}
    places = [place_of(part, "official") for part in parts]
    whole = len({place.module for place in places}) == 1 and [place.third for place in places] in ([None], [0, 1, 2])
    return places[0].module if whole and not any(place.swapped for place in parts.values()) else None


def is_trainable(name: str) -> bool:
    """Whether an official module name is that of one of the 14 linear layers of a double block."""
    return _TRAINED.fullmatch(name) is not None


def select_modules(
    names: Iterable[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    preset: LayerPreset = "all",
    blocks: tuple[int, int] | None = None,
) -> list[str]:
    """Return the modules to train, in the order of `names`.

    A module is trained if it is one of the 14 linear layers of a double block, belongs to the preset and to the blocks,
    an include pattern matches (or there are none), and no exclude pattern matches. Patterns are regular expressions
    that are searched in the official dotted name: `img_attn_[qkv]`, `double_blocks\\.(1|2)\\.`.

    Args:
        blocks: first and last; None means all.

    Raises:
        UserError: a pattern is invalid or matches nothing, there are no such blocks, or no module is left to train.
    """
    linears = [name for name in names if is_trainable(name) and _in_preset(name, preset)]
    if blocks is not None:
        linears = _in_blocks(linears, blocks)
    selected = chosen_by_patterns(linears, include, exclude, section="train.")
    if not selected:
        raise UserError(
            f"no module is left to train: {len(linears)} linear layers, include_patterns {list(include)}, "
            f"exclude_patterns {list(exclude)}",
            hint="loosen train.include_patterns or train.exclude_patterns",
        )
    return selected


def chosen_by_patterns(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str], *, section: str = ""
) -> list[str]:
    """Return the names in which an include pattern is found (if there are any) and no exclude pattern, in their order.

    Args:
        section: what stands before `include_patterns` and `exclude_patterns` in messages, such as "train.".

    Raises:
        UserError: a pattern is invalid or matches nothing.
    """
    searches = Searches()
    wanted, unwanted = (
        set[str]().union(*(_matching(f"{section}{setting}", text, names, searches) for text in texts))
        for setting, texts in (("include_patterns", include), ("exclude_patterns", exclude))
    )
    return [name for name in names if (not include or name in wanted) and name not in unwanted]


def _in_preset(name: str, preset: LayerPreset) -> bool:
    match preset:
        case "all":
            return True
        case "attention":
            return "_attn_" in name
        case "mlp":
            return "_mlp." in name
        case "no_modulation":
            return "_mod." not in name


def _in_blocks(names: Sequence[str], blocks: tuple[int, int]) -> list[str]:
    first, last = blocks
    numbers = {name: int(name.split(".")[1]) for name in names}
    highest = max(numbers.values(), default=-1)
    if last > highest:
        raise UserError(
            f"train.layer_blocks: {[first, last]}, but the transformer's blocks are 0 to {highest}",
            hint=f"use for example [0, {highest}], or leave it out for all blocks",
        )
    return [name for name in names if first <= numbers[name] <= last]


def by_pattern(setting: str, patterns: Mapping[str, Value], names: Sequence[str], otherwise: Value) -> dict[str, Value]:
    """Return a value for each of the layers that get a LoRA.

    Args:
        setting: the one of `train:` that holds the patterns.
        patterns: regular expression -> value; the first that is found in a name counts.
        names: official names of the layers.
        otherwise: the value of all others.

    Raises:
        UserError: an expression is invalid, is found in no name, or only in those where an earlier one is found.
    """
    searches, values = Searches(), dict[str, Value]()
    for pattern, value in patterns.items():
        found = _matching(f"train.{setting}", pattern, names, searches)
        if found <= values.keys():
            raise UserError(
                f"train.{setting}: {pattern!r:.200} has no effect: earlier patterns are found in all of its layers",
                hint="put it before them: the first pattern that is found in a layer's name counts",
            )
        values = {**dict.fromkeys(found, value), **values}
    return {name: values.get(name, otherwise) for name in names}


def _matching(setting: str, text: str, names: Sequence[str], searches: Searches) -> set[str]:
    """Return the names in which a pattern is found; `setting` is the one that holds it, for messages.

    Raises:
        UserError: it is not a regular expression, or is found in none.
    """
    try:
        found = {name for name in names if searches.found(text, name)}
    except PatternError as error:
        raise UserError(
            f"{setting}: {text!r:.200} is not usable as a regular expression: {error}",
            hint=r"write it like img_attn_[qkv] or double_blocks\.(1|2)\.",
        ) from error
    if not found:
        examples = dict.fromkeys((names[0], names[-1])) if names else ["double_blocks.0.img_attn_q"]
        raise UserError(
            f"{setting}: {text!r:.200} matches none of the {len(names)} linear layers",
            hint=f"correct the pattern: it is searched in names such as {' and '.join(examples)}",
        )
    return found
