"""Where a LoRA acts: layers by pattern and strengths by block equal a file that was changed in the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import convert, save_lora
from hv15.lora.applied import AppliedLoRAs
from hv15.lora.changes import read_changes
from hv15.lora.merging import merge_to_file
from hv15.lora.outline import changed_layers
from hv15.lora.reach import EVERYWHERE, Reach, StrengthPart
from hv15.lora.weighted import WeightedLoRA
from hv15.models import DiT, load_dit, save_dit
from tests.lora.lycoris_files import made
from tests.lora.samples import kohya, linears, random_lora, run, without
from tests.models.golden_dit import golden_dit

pytestmark = pytest.mark.numeric

LAYERS = [*linears(golden_dit())]
WEAK = Reach(strength_by=(StrengthPart(0.5, blocks=(1, 1)),))


def with_loras(*loras: tuple[dict[str, Tensor], float, Reach], dit: DiT | None = None) -> Tensor:
    dit = golden_dit() if dit is None else dit
    applied = AppliedLoRAs()
    for tensors, multiplier, reach in loras:
        applied.add(dit, read_changes(tensors), multiplier, reach)
    return run(dit)


def scaled(tensors: dict[str, Tensor], factor: float, has: Callable[[str], bool]) -> dict[str, Tensor]:
    """The same file with other alphas of some modules; each of its kinds has one."""
    return {
        key: value * factor if key.endswith(".alpha") and has(key) else value.clone() for key, value in tensors.items()
    }


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "diffusers", "official"])
def test_patterns_are_searched_in_the_official_names_of_any_file(layout: str) -> None:
    tensors = random_lora(linears(golden_dit()))
    reach = Reach(include=("img_attn_q$", r"double_blocks\.1\."), exclude=("_mlp",))
    left = [name for name in LAYERS if ("img_attn_q" in name or "blocks.1." in name) and "_mlp" not in name]
    assert 2 < len(left) < len(LAYERS) - 2
    expected = with_loras((without(tensors, set(LAYERS) - set(left)), 0.7, EVERYWHERE))
    found = with_loras((convert(tensors, layout)[0], 0.7, reach))
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(found, with_loras((tensors, 0.7, EVERYWHERE)), atol=1e-2)


@pytest.mark.parametrize("kind", ["locon", "loha", "lokr", pytest.param("lokr, both factored", marks=pytest.mark.slow)])
@pytest.mark.parametrize("factor", [0.0, 0.5, pytest.param(-1.0, marks=pytest.mark.slow)])
def test_a_factor_by_block_is_another_alpha_there(kind: str, factor: float) -> None:
    file, _ = made(kind)
    reach = Reach(strength_by=(StrengthPart(factor, blocks=(1, 1)),))
    expected = with_loras((scaled(file, factor, lambda key: "double_blocks_1_" in key), 0.8, EVERYWHERE))
    found = with_loras((file, 0.8, reach))
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, with_loras((file, 0.8, EVERYWHERE)), atol=1e-3)


@pytest.mark.parametrize("kind", ["dora", "dora by columns", "glora"])
def test_a_kind_that_depends_on_the_weight_has_its_strength_by_block_too(kind: str) -> None:
    """As two files, each with the modules of one block."""
    file, _ = made(kind)
    first, second = ({key: value for key, value in file.items() if f"double_blocks_{n}_" in key} for n in (0, 1))
    assert len(first) + len(second) == len(file)
    expected = with_loras((first, 0.8, EVERYWHERE), (second, 0.4, EVERYWHERE))
    assert_close(with_loras((file, 0.8, WEAK)), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(expected, with_loras((file, 0.8, EVERYWHERE)), atol=1e-4)


def test_where_several_apply_their_factors_are_multiplied() -> None:
    tensors = random_lora(linears(golden_dit()))
    parts = StrengthPart(0.5, blocks=(0, 1)), StrengthPart(0.5, blocks=(1, 9)), StrengthPart(2.0, steps=(0.0, 0.5))
    expected = scaled(scaled(tensors, 1.0, lambda key: True), 0.5, lambda key: "double_blocks_1_" in key)
    assert_close(
        with_loras((tensors, 1.0, Reach(strength_by=parts))), with_loras((expected, 1.0, EVERYWHERE)), atol=1e-5, rtol=0
    )


def test_layers_outside_the_blocks_have_no_factor_by_block() -> None:
    everything = linears(golden_dit(), inside="")
    tensors = random_lora(everything, rank=2)
    inside = Reach(strength_by=(StrengthPart(0.0, blocks=(0, 99)),))
    only_outside = without(tensors, LAYERS)
    assert_close(with_loras((tensors, 1.0, inside)), with_loras((only_outside, 1.0, EVERYWHERE)), atol=0, rtol=0)


@pytest.mark.parametrize("quantize", ["fp8", pytest.param("int8", marks=pytest.mark.slow)])
def test_on_a_quantised_base_too(tmp_path: Path, quantize: str) -> None:
    save_dit(golden_dit(), tmp_path / "dit.safetensors")
    tensors = random_lora(linears(golden_dit()))
    half = scaled(tensors, 0.5, lambda key: "double_blocks_1_" in key)
    found, expected, whole = (
        with_loras((each, 1.0, reach), dit=load_dit(tmp_path / "dit.safetensors", quantize=quantize))  # type: ignore[arg-type]
        for each, reach in ((tensors, WEAK), (half, EVERYWHERE), (tensors, EVERYWHERE))
    )
    assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(found, whole, atol=1e-2)


def test_where_it_does_not_act_the_bits_are_those_without_it() -> None:
    tensors = random_lora(linears(golden_dit()))
    for part in (StrengthPart(0.0, blocks=(0, 1)), StrengthPart(0.0, steps=(0.0, 1.0))):
        assert torch.equal(with_loras((tensors, 1.0, Reach(strength_by=(part,)))), run(golden_dit()))


def test_strengths_follow_the_steps_and_end_with_the_loras() -> None:
    dit, tensors = golden_dit(), random_lora(linears(golden_dit()))
    applied = AppliedLoRAs()
    applied.add(dit, read_changes(tensors), 1.0, Reach(strength_by=(StrengthPart(0.5, steps=(0.5, 1.0)),)))
    whole, half = (with_loras((tensors, strength, EVERYWHERE)) for strength in (1.0, 0.5))
    changed = []
    for step, expected in enumerate([whole, whole, half, half]):
        changed.append(applied.begin_step(step, 4))
        assert torch.equal(run(dit), expected), step
    assert changed == [False, False, True, False]
    assert applied.begin_step(0, 4)
    assert torch.equal(run(dit), whole)
    applied.remove()
    assert not applied.begin_step(3, 4)
    assert torch.equal(run(dit), run(golden_dit()))


@pytest.mark.slow
def test_compiled_blocks_notice_other_strengths() -> None:
    dit, tensors = golden_dit(), random_lora(linears(golden_dit()))
    dit.compile_blocks(backend="eager")
    applied = AppliedLoRAs()
    parts = StrengthPart(0.0, steps=(0.0, 0.3)), StrengthPart(0.5, steps=(0.6, 1.0))
    applied.add(dit, read_changes(tensors), 1.0, Reach(strength_by=parts))
    plain, whole, half = (with_loras((tensors, strength, EVERYWHERE)) for strength in (0.0, 1.0, 0.5))
    with torch.no_grad():
        for step, expected in ((0, plain), (5, whole), (9, half), (0, plain), (5, whole)):
            applied.begin_step(step, 10)
            assert_close(run(dit), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [((0.5, 1.0), 50, range(25, 50)), ((0.0, 0.22), 50, range(11)), ((0.5, 1.0), 3, range(2, 3)), (None, 4, range(4))],
)
def test_parts_of_the_steps(steps: tuple[float, float] | None, count: int, expected: range) -> None:
    assert StrengthPart(0.0, steps=steps).steps_of(count) == expected


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (Reach(include=("img_attn", "attn_qkv")), "include_patterns: 'attn_qkv' matches none of the 28 linear layers"),
        (Reach(exclude=("single_blocks",)), "exclude_patterns: 'single_blocks' matches none"),
        (Reach(include=("img_",), exclude=("img",)), r"none of the 28 layers .* is left"),
        (Reach(include=("(",)), "not usable as a regular expression"),
        (WEAK, None),
        (Reach(strength_by=(StrengthPart(0.5, blocks=(2, 9)),)), r"blocks \[2, 9\] have none .* blocks 0 to 1"),
        (Reach(include=("blocks.0",), strength_by=(StrengthPart(0.5, blocks=(1, 1)),)), r"\[1, 1\] have none"),
    ],
)
def test_what_names_no_layer_is_refused(reach: Reach, words: str | None) -> None:
    if words is None:
        assert reach.layers(LAYERS) == LAYERS
        return
    with pytest.raises(UserError, match=words) as caught:
        reach.layers(LAYERS)
    assert caught.value.hint


def test_the_refusal_names_examples() -> None:
    with pytest.raises(UserError) as caught:
        Reach(include=("qkv",)).layers(LAYERS)
    assert caught.value.hint is not None
    assert LAYERS[0] in caught.value.hint
    assert LAYERS[-1] in caught.value.hint


def test_steps_of_which_a_sample_has_none_are_refused() -> None:
    early = Reach(strength_by=(StrengthPart(0.0, steps=(0.0, 0.02)),))
    early.check_steps(50)
    with pytest.raises(UserError, match=r"steps \[0\.0, 0\.02\] are none of 12 steps"):
        early.check_steps(12)


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "diffusers", "official"])
def test_the_layers_of_a_file_are_known_from_its_header(tmp_path: Path, layout: str) -> None:
    everything = linears(golden_dit(), inside="")
    tensors = convert(random_lora(everything, rank=2), layout)[0]
    save_lora(tmp_path / "lora.safetensors", tensors, {})
    assert {*changed_layers(tmp_path / "lora.safetensors")} == {*everything} == {*read_changes(tensors)}


def test_merged_it_acts_as_beside_the_weights(tmp_path: Path) -> None:
    save_dit(golden_dit(), tmp_path / "dit.safetensors")
    tensors = random_lora(linears(golden_dit()))
    save_lora(tmp_path / "lora.safetensors", tensors, {})
    reach = Reach(exclude=("txt_",), strength_by=(StrengthPart(0.5, blocks=(1, 1)),))
    lora = WeightedLoRA(tmp_path / "lora.safetensors", 0.8, reach=reach)
    merge_to_file(tmp_path / "dit.safetensors", [lora], tmp_path / "merged.safetensors")
    found = run(load_dit(tmp_path / "merged.safetensors", config=golden_dit().config))
    assert_close(found, with_loras((tensors, 0.8, reach)), atol=1e-5, rtol=0)
    by_steps = WeightedLoRA(lora.path, reach=Reach(strength_by=(StrengthPart(0.0, steps=(0.5, 1.0)),)))
    with pytest.raises(UserError, match=r"lora\.safetensors: strength_by: .*cannot be merged"):
        merge_to_file(tmp_path / "dit.safetensors", [by_steps], tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_names_are_those_of_kohya() -> None:
    """The samples of this file find modules by their keys."""
    assert all(f"{kohya(name)}.alpha" in random_lora(linears(golden_dit())) for name in LAYERS)
