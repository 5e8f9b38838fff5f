"""From a config to sample specs: who decides each setting, and what a spec's file keeps."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from hv15.config import Settings
from hv15.digest import digest
from hv15.errors import UserError
from hv15.lora.reach import Reach, StrengthPart
from hv15.models.super_resolution import SUPER_RESOLUTIONS
from hv15.models.variants import VARIANTS
from hv15.records.spec import Spec
from hv15.sample.plan import plan_enlarged, plan_previews, plan_samples
from hv15.sample.prompts import Enlarged, ImageFile, LoRAFile, SampleSpec, StepCaching
from tests.sample.conftest import TEXT, TRAINED, made_from

EMPTY_SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
MODELS = {"dit": "abc", "vae": "def", "text_encoder": "ghi", "image_encoder": "jkl"}


def settings_of(prompts, task="t2v", **sample) -> Settings:
    return Settings.model_validate(
        {
            "task": task,
            "models": {"source": "demo"},
            "datasets": [{"video_directory": "clips", "resolution": [64, 64]}],
            "sample": {"prompts": prompts, **sample},
        }
    )


def plan(prompts, *, variant="480p_t2v", task="t2v", **sample):
    return plan_samples(settings_of(prompts, task, **sample), variant, MODELS)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [  # REFERENCE.md 3: guidance, shift, steps
        ("480p_t2v", (6, 5, 50)),
        ("480p_i2v", (6, 5, 50)),
        ("720p_t2v", (6, 9, 50)),
        ("720p_i2v", (6, 7, 50)),
        ("480p_t2v_distilled", (1, 5, 50)),
        ("720p_t2v_distilled", (1, 9, 50)),
        ("720p_i2v_distilled_sparse", (1, 7, 50)),
        ("480p_i2v_step_distilled", (1, 7, 12)),
    ],
)
def test_official_defaults_of_the_checkpoint(variant, expected):
    (spec,) = plan([{"prompt": "a cat"}], variant=variant)
    assert (spec.guidance_scale, spec.flow_shift, spec.steps) == expected
    assert (spec.seed, spec.frames, spec.fps, spec.negative_prompt) == (123, 121, 24, "")


def test_the_prompt_wins_over_the_section_and_the_section_over_the_checkpoint():
    own = {"prompt": "b", "infer_steps": 8, "seed": 0, "guidance_scale": 0, "video_size": [64, 80]}
    first, second = plan([{"prompt": "a"}, own], infer_steps=20, seed=7, flow_shift=3.0, video_size=[96, 96])
    assert (first.steps, first.seed, first.flow_shift, first.guidance_scale) == (20, 7, 3.0, 6.0)
    assert (second.steps, second.seed, second.flow_shift, second.guidance_scale) == (8, 0, 3.0, 0.0)
    assert (first.height, first.width) == (96, 96)
    assert (second.height, second.width) == (64, 80)


@pytest.mark.parametrize("text", ["I am walking --i photo.png", "a --w 640 --h 360 --d 7 --s 3 dog", "${HOME} -n {x}"])
def test_a_prompt_is_never_read_as_options(text):
    (spec,) = plan([{"prompt": text}])
    (plain,) = plan([{"prompt": "a dog"}])
    assert spec.prompt == text
    assert spec.image is None
    assert dataclasses.replace(spec, name=plain.name, prompt=plain.prompt) == plain


def test_the_negative_prompt_counts_only_when_guidance_is_on():
    on, off = plan([{"prompt": "a"}, {"prompt": "b", "guidance_scale": 1.0}], negative_prompt="blurry")
    assert (on.negative_prompt, off.negative_prompt) == ("blurry", "")


def test_with_base_adds_a_sample_without_the_trained_lora(tmp_path):
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(EMPTY_SAFETENSORS)
    loras = [{"path": str(lora), "multiplier": 0.5}]
    with_lora, base = plan([{"name": "cat", "prompt": "a cat"}], with_base=True, lora_multiplier=0.8, loras=loras)
    assert (with_lora.name, base.name) == ("cat", "cat.base")
    assert (with_lora.lora_multiplier, base.lora_multiplier) == (0.8, None)
    assert base.loras == with_lora.loras  # those of the config stay: the comparison is about the trained one
    assert base.seed == with_lora.seed


def test_where_a_lora_acts_is_part_of_the_sample(tmp_path):
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(EMPTY_SAFETENSORS)
    by = [{"blocks": [0, 19], "factor": 0.5}, {"steps": [0.5, 1.0], "factor": 0}]
    entry = {"path": str(lora), "include_patterns": ["img_attn"], "exclude_patterns": ["_mod"], "strength_by": by}
    (spec,) = plan([{"prompt": "a cat"}], loras=[entry])
    parts = StrengthPart(0.5, blocks=(0, 19)), StrengthPart(0.0, steps=(0.5, 1.0))
    assert spec.loras[0].reach == Reach(("img_attn",), ("_mod",), parts)
    assert SampleSpec.from_json(spec.to_json()) == spec
    seen = []
    for change in (
        {},
        {"include_patterns": []},
        {"exclude_patterns": []},
        {"strength_by": by[:1]},
        {"strength_by": []},
    ):
        (changed,) = plan([{"prompt": "a cat"}], loras=[{**entry, **change}])
        seen.append(digest(changed.denoising("t", "x")))
    assert len({*seen}) == 5


def test_a_lora_that_acts_everywhere_leaves_former_samples_as_they_are(tmp_path):
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(EMPTY_SAFETENSORS)
    (spec,) = plan([{"prompt": "a cat"}], loras=[{"path": str(lora), "multiplier": 0.5}])
    (recorded,) = spec.denoising("t", "x")["loras"]
    assert recorded.keys() == {"fingerprint", "multiplier"}
    former = spec.to_json()
    del former["loras"][0]["reach"]
    assert SampleSpec.from_json(former) == spec


def test_a_part_of_the_steps_must_have_one_of_this_sample(tmp_path):
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(EMPTY_SAFETENSORS)
    loras = [{"path": str(lora), "strength_by": [{"steps": [0.0, 0.02], "factor": 0}]}]
    assert len(plan([{"prompt": "a cat", "infer_steps": 50}], loras=loras)) == 1
    with pytest.raises(UserError, match=r"cat: .*style\.safetensors: strength_by: steps \[0\.0, 0\.02\] are none of 8"):
        plan([{"name": "cat", "prompt": "a cat", "infer_steps": 8}], loras=loras)


def test_several_seeds_give_a_sample_each():
    every = [{"name": "own", "prompt": "a", "seed": 9}, {"name": "all", "prompt": "b"}, {"name": "few", "prompt": "c"}]
    every[2]["seeds"] = [5]
    specs = plan(every, seeds=[1, 2], with_base=True)
    assert [(spec.name, spec.seed) for spec in specs if spec.lora_multiplier is not None] == [
        ("own", 9),
        ("all.seed1", 1),
        ("all.seed2", 2),
        ("few.seed5", 5),
    ]
    bases = {spec.name: spec.seed for spec in specs if spec.lora_multiplier is None}
    assert bases == {"own.base": 9, "all.seed1.base": 1, "all.seed2.base": 2, "few.seed5.base": 5}
    (alone,) = plan([{"name": "all", "prompt": "b", "seed": 2}])
    assert made_from(alone) == made_from(specs[4])  # the file of a seed does not depend on the others


def test_previews_are_of_the_first_seed():
    settings = settings_of([{"name": "cat", "prompt": "a"}], seeds=[4, 2])
    samples = {spec.name: spec for spec in plan_samples(settings, "480p_t2v", MODELS)}
    assert [(spec.name, spec.seed) for spec in plan_previews(settings, samples)] == [("cat.seed4", 4)]


def test_a_seed_is_asked_for_once():
    with pytest.raises(ValueError, match="found 3 twice"):
        settings_of([{"prompt": "a", "seeds": [3, 1, 3]}])
    with pytest.raises(ValueError, match="found 3 twice"):
        settings_of([{"prompt": "a"}], seeds=[3, 3])
    with pytest.raises(ValueError, match="keep one of the two"):
        settings_of([{"prompt": "a", "seed": 1, "seeds": [3]}])


def test_latent_size():
    (spec,) = plan([{"prompt": "a", "video_size": [480, 848], "video_length": 121}])
    assert spec.latent_size == (31, 30, 53)


def test_a_spec_survives_its_file(tmp_path):
    image, lora = tmp_path / "cat.png", tmp_path / "style.safetensors"
    image.write_bytes(b"image")
    lora.write_bytes(EMPTY_SAFETENSORS)
    prompt = {"prompt": "a “sign”\nand a cat", "image_path": str(image), "loras": [{"path": str(lora)}]}
    (spec,) = plan([prompt], task="i2v", variant="720p_i2v")
    Spec({}, {"sample": spec.to_json()}).write(tmp_path / "a.json")
    read = SampleSpec.from_json(Spec.load(tmp_path / "a.json").details["sample"])
    assert read == spec
    assert read.to_text() == spec.to_text()


def test_what_the_latents_depend_on_sees_every_change(tmp_path):
    image = tmp_path / "cat.png"
    image.write_bytes(b"image")
    (spec,) = plan([{"prompt": "a", "image_path": str(image)}], task="i2v")
    image.write_bytes(b"other")
    (edited,) = plan([{"prompt": "a", "image_path": str(image)}], task="i2v")
    changes = {"seed": 1}, {"prompt": "b"}, {"models": {**MODELS, "dit": "d"}}
    changed = [dataclasses.replace(spec, **change) for change in changes]
    assert len({digest(each.denoising("t", "x")) for each in (spec, edited, *changed)}) == 5
    assert len({digest(spec.denoising(*others)) for others in (("t", "x"), ("u", "x"), ("t", "y"))}) == 3


def test_only_what_the_trained_lora_acts_on_depends_on_it():
    """The sample without the LoRA stays when the LoRA is trained again, but depends on how its prompt is encoded."""
    with_lora, base = plan([{"prompt": "a"}], with_base=True)
    assert with_lora.denoising("t", "x") != with_lora.denoising("u", "x")
    assert base.denoising("t", "x") == base.denoising("u", "x")
    assert base.denoising("t", "x") != base.denoising("t", "y")


@pytest.mark.parametrize("damage", [lambda c: c.pop("seed"), lambda c: c.update(colour="red")])
def test_a_foreign_spec_is_named(damage):
    (spec,) = plan([{"prompt": "a"}])
    content = spec.to_json()
    damage(content)
    with pytest.raises(UserError, match=r"a\.json: .*(seed|colour)"):
        SampleSpec.from_json(content, source="a.json")


@pytest.mark.parametrize("key", ["image_path", "loras"])
def test_a_missing_file_is_named(key, tmp_path):
    missing = str(tmp_path / "missing.file")
    prompt = {"name": "cat", "prompt": "a cat", "image_path": missing}
    if key == "loras":
        (tmp_path / "image.png").write_bytes(b"image")
        prompt |= {"image_path": str(tmp_path / "image.png"), "loras": [{"path": missing}]}
    with pytest.raises(UserError, match=r"cat: .*missing\.file"):
        plan([prompt], task="i2v")


def test_every_variant_plans():
    assert all(plan([{"prompt": "a"}], variant=variant) for variant in VARIANTS)


def test_planning_loads_no_torch():
    code = "import sys, hv15.sample.plan; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_latents_depend_on_no_setting_of_the_decoding(spec: SampleSpec) -> None:
    other_vae = {"models": {**spec.models, "vae": "other"}}
    decoded_otherwise = dataclasses.replace(
        spec, fps=12.0, output_type="images", vae_sample_size=128, vae_dtype="float16", **other_vae
    )
    assert made_from(decoded_otherwise) == made_from(spec)
    assert made_from(dataclasses.replace(spec, seed=7)) != made_from(spec)
    i2v = dataclasses.replace(spec, task="i2v")
    assert made_from(dataclasses.replace(i2v, **other_vae)) != made_from(i2v), "the VAE encodes the first frame"


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"fps": 12.0}, True),
        ({"vae_sample_size": 128}, True),
        ({"vae_tile_overlap": 0.5}, False),  # it is not read without tiles
        ({"vae_sample_size": 128, "vae_tile_overlap": 0.5}, True),
        ({"vae_seamless_tiles": True}, False),
        ({"vae_sample_size": 128, "vae_seamless_tiles": True}, True),
        ({"vae_dtype": "float32"}, True),
        ({"vae_dtype": "auto"}, False),  # that of the transformer, as it is anyway
        ({"seed": 7}, True),
        ({"models": {"dit": "the dit", "vae": "other"}}, True),
        ({"models": {"dit": "other", "vae": "the vae"}}, True),
        ({"name": "dog"}, False),
        ({"output_type": "both"}, False),
        ({"variant": "720p_t2v"}, False),
    ],
    ids=str,
)
def test_what_the_pixels_depend_on(spec: SampleSpec, change: dict[str, Any], counts: bool) -> None:
    changed = dataclasses.replace(spec, **change)
    assert (changed.decoding(TRAINED, TEXT) != spec.decoding(TRAINED, TEXT)) == counts


def test_every_field_of_a_sample_counts_or_is_named_as_one_that_does_not(spec: SampleSpec) -> None:
    """A new field missing from the spec would silently keep old samples."""
    i2v = dataclasses.replace(spec, task="i2v", image=ImageFile("a.png", "f1"))
    others: dict[str, Any] = {
        "task": "t2v",
        "output_type": "images",
        "image": ImageFile("a.png", "f2"),
        "loras": (LoRAFile("a.safetensors", "f1", 1.0),),
        "models": {**spec.models, "image_encoder": "other"},
        "lora_multiplier": None,
        "step_cache": StepCaching("deepcache", 0.2, 0.9, 4, 0.1),
        "guidance_interval": (0.0, 0.5),
        "cfg_zero_star": True,
        "sage_blocks": (0, 3),
        "guidance_batch": "batched",
        "enlarges": Enlarged("720p", 64, 64, "f3"),
        "vae_dtype": "float16",
    }
    silent = {"fps", "output_type", "vae_sample_size", "vae_tile_overlap", "vae_seamless_tiles", "name", "variant"}
    for field in dataclasses.fields(SampleSpec):
        value = getattr(i2v, field.name)
        other = others[field.name] if field.name in others else f"{value}2" if isinstance(value, str) else value + 4
        changed = dataclasses.replace(i2v, **{field.name: other})
        assert (made_from(changed) == made_from(i2v)) == (field.name in silent), field.name


def test_settings_that_came_later_leave_former_samples_as_they_are(spec: SampleSpec) -> None:
    later = {"step_cache", "guidance_interval", "cfg_zero_star", "zero_init_steps", "enlarges"}
    later |= {"sage_blocks", "guidance_batch", "vae_seamless_tiles", "vae_dtype"}
    assert not later & spec.denoising(TRAINED, TEXT).keys()
    former = {name: value for name, value in spec.to_json().items() if name not in later}
    assert SampleSpec.from_json(former) == spec
    assert SampleSpec.from_json(spec.to_json()) == spec
    cached = dataclasses.replace(
        spec, step_cache=StepCaching("deepcache", 0.2, 0.9, 4, 0.1), sage_blocks=(0, 3), guidance_batch="by_memory"
    )
    assert SampleSpec.from_json(cached.to_json()) == cached


def test_the_first_image_depends_on_no_setting_of_the_denoising(spec: SampleSpec) -> None:
    i2v = dataclasses.replace(spec, task="i2v", image=ImageFile("a.png", "f1"))
    others = {"seed": 7, "prompt": "b", "steps": 9, "image": ImageFile("b.png", "f1")}
    assert dataclasses.replace(i2v, **others).conditioning() == i2v.conditioning()
    for change in ({"image": ImageFile("a.png", "f2")}, {"height": 64}, {"dtype": "float32"}, {"vae_dtype": "float32"}):
        assert dataclasses.replace(i2v, **change).conditioning() != i2v.conditioning()


def test_a_moved_file_samples_nothing_again(spec: SampleSpec) -> None:
    lora, image = LoRAFile("a.safetensors", "f1", 1.0), ImageFile("a.png", "f2")
    here = dataclasses.replace(spec, loras=(lora,), image=image)
    there = dataclasses.replace(
        spec, loras=(dataclasses.replace(lora, path="b"),), image=dataclasses.replace(image, path="b")
    )
    assert made_from(here) == made_from(there)
    changed = dataclasses.replace(here, image=dataclasses.replace(image, fingerprint="f3"))
    assert made_from(changed) != made_from(here)


def test_what_an_enlarged_sample_depends_on(spec: SampleSpec) -> None:
    """Its own models, not the small video's transformer; the file that it enlarges; and all of its own settings."""
    small = dataclasses.replace(spec, step_cache=StepCaching("deepcache", 0.2, 0.9, 4, 0.1), cfg_zero_star=True)
    found = Enlarged("1080p", 480, 640, "f1")
    large = plan_enlarged(small, SUPER_RESOLUTIONS["1080p"], spec.models, found, (720, 960))
    assert (large.height, large.width, large.steps, large.flow_shift) == (720, 960, 8, 2.0)
    assert not large.guided
    assert (large.step_cache, large.cfg_zero_star, large.lora_multiplier) == (None, False, None)
    assert (large.prompt, large.seed, large.frames) == (spec.prompt, spec.seed, spec.frames)
    assert SampleSpec.from_json(large.to_json()) == large
    for change in ({"enlarges": dataclasses.replace(found, file="f2")}, {"steps": 6}, {"width": 976}):
        assert made_from(dataclasses.replace(large, **change)) != made_from(large)
    for role, counts in {"sr_dit": True, "upsampler": True, "vae": True, "dit": False, "image_encoder": False}.items():
        changed = dataclasses.replace(large, models={**spec.models, role: "other"})
        assert (made_from(changed) != made_from(large)) == counts, role
    i2v = dataclasses.replace(large, task="i2v", image=ImageFile("a.png", "f1"))
    assert i2v.conditioning() != dataclasses.replace(i2v, enlarges=None).conditioning(), "the image encoder sees more"
