"""An edit of every setting that a training reads: the table of tests/project/test_marks.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.project.test_dataset import BASE, OTHER, READ_WITH
from tests.project.test_encodings import OTHER as CACHE

Sections = dict[str, Any]
"""Of a config, nested."""

DATASET = {**BASE, "video_directory": "clips"}
SECOND = {**BASE, "video_directory": "second"}
"""A dataset that takes part in all steps."""
FILES = {
    role: f"models/{role}.safetensors" for role in ("dit", "vae", "text_encoder", "glyph_encoder", "image_encoder")
} | {"tokenizer": "models/tokenizer"}
HUB = {"source": "hub", "variant": "480p_t2v"}
START, OTHER_START = "start.safetensors", "other.safetensors"


@dataclass(frozen=True)
class SettingEdit:
    """Another value of a setting, where it has an effect."""

    after: Sections
    before: Sections = field(default_factory=dict)
    """What has to be set for the effect."""


def train(name: str, value: object, **before: object) -> tuple[str, SettingEdit]:
    """An edit of a setting of `train`."""
    return f"train.{name}", SettingEdit({"train": {name: value}}, {"train": before})


def validation(name: str, value: object, **before: object) -> tuple[str, SettingEdit]:
    """An edit of a setting of `train.validation`."""
    nested = {"train": {"validation": {"fraction": 0.3, **before}}}
    return f"train.validation.{name}", SettingEdit({"train": {"validation": {name: value}}}, nested)


IN_DATASETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "video_directory": ({}, {"video_directory": "others"}),
    "video_jsonl_file": (
        {"video_directory": None, "video_jsonl_file": "a.jsonl"},
        {"video_directory": None, "video_jsonl_file": "b.jsonl"},
    ),
    "image_directory": (
        {"video_directory": None, "target_frames": [1], "image_directory": "images"},
        {"video_directory": None, "target_frames": [1], "image_directory": "pictures"},
    ),
    "image_jsonl_file": (
        {"video_directory": None, "target_frames": [1], "image_jsonl_file": "c.jsonl"},
        {"video_directory": None, "target_frames": [1], "image_jsonl_file": "d.jsonl"},
    ),
    "default_caption": ({"video_directory": "bare", "default_caption": "a clip"}, {"default_caption": "one more"}),
    "keep_tags": ({"shuffle_tags": True}, {"keep_tags": 1}),
    "tag_separator": ({"shuffle_tags": True}, {"tag_separator": ";"}),
    "caption_versions": ({"shuffle_tags": True}, {"caption_versions": 4}),
    "start_step": ({}, {"start_step": 1}),
    "end_step": ({}, {"end_step": 6}),
    "max_num_samples": ({}, {"max_num_samples": 1}),
    "reg_target": ({"is_reg": True}, {"reg_target": "clips"}),
    **{name: ({"frame_extraction": way}, OTHER[name]) for name, way in READ_WITH.items()},
}
"""What has to be set, and another value, where that is not as in tests/project/test_dataset.py."""

NOT_VALIDATED = {"is_reg", "reg_target", "loss_weight", "start_step", "end_step"}
"""Settings that a dataset of the validation may not have."""


def in_datasets(name: str) -> SettingEdit:
    """An edit of a setting of a dataset, beside another dataset."""
    before, after = IN_DATASETS.get(name, ({}, OTHER[name]))
    return SettingEdit(
        {"datasets": [{**DATASET, **before, **after}, SECOND]}, {"datasets": [{**DATASET, **before}, SECOND]}
    )


def in_validation(name: str) -> SettingEdit:
    """An edit of a setting of a dataset of the validation, with no file that is trained on."""
    before, after = IN_DATASETS.get(name, ({}, OTHER[name]))
    trained = {"datasets": [SECOND]}

    def measured(changes: dict[str, Any]) -> Sections:
        return {"train": {"validation": {"datasets": [{**DATASET, **changes}], "every_n_steps": 2}}}

    return SettingEdit(measured({**before, **after}), {**trained, **measured(before)})


EDITS: dict[str, SettingEdit] = {
    "task": SettingEdit({"task": "i2v", "sample": {"prompts": []}}),
    "models.source": SettingEdit({"models": HUB}),
    "models.variant": SettingEdit({"models": {"variant": "720p_t2v"}}, {"models": HUB}),
    "models.revision": SettingEdit({"models": {"revision": "0" * 40}}, {"models": HUB}),
    "models.directory": SettingEdit({"models": {"directory": "elsewhere"}}),
    **{
        f"models.{role}": SettingEdit(
            {"models": {role: f"models/other.{path.removeprefix('models/')}"}},
            {"task": "i2v", "models": {"source": "files", **FILES}, "sample": {"prompts": []}},
        )
        for role, path in FILES.items()
    },
    **{
        f"models.{role}": SettingEdit(
            {"models": {role: "models/dit.safetensors"}},
            {"task": "i2v", "models": {"source": "files", **FILES}, "sample": {"prompts": []}},
        )
        for role in ("sr_dit", "upsampler")
    },
    **{f"datasets[].{name}": in_datasets(name) for name in OTHER},
    **{
        f"cache.{name}": SettingEdit(
            {"cache": {name: value}}, {"cache": {"vae_sample_size": 128}} if name == "vae_tile_overlap" else {}
        )
        for name, value in CACHE.items()
    },
    **dict(
        [
            train("seed", 7),
            train("max_train_steps", 10),
            ("train.max_train_epochs", SettingEdit({"train": {"max_train_steps": None, "max_train_epochs": 9}})),
            train("gradient_accumulation_steps", 2),
            train("num_processes", 2),
            train("num_machines", 2, num_processes=2),
            train("continue_from", START),
            train("reset_optimizer", True, continue_from="theirs"),
            train("lr_scheduler", "inverse_sqrt"),
            train("lr_warmup_steps", 2),
            train("lr_scheduler_num_cycles", 2, lr_scheduler="cosine_with_restarts"),
            train("lr_scheduler_power", 2.0, lr_scheduler="polynomial"),
            train("lr_scheduler_min_lr_ratio", 0.2, lr_scheduler="cosine_with_min_lr", lr_scheduler_min_lr_ratio=0.1),
            train("lr_scheduler_min_lr", 2e-5, lr_scheduler="cosine_with_min_lr", lr_scheduler_min_lr=1e-5),
            train("lr_decay_steps", 3, lr_scheduler="warmup_stable_decay", lr_decay_steps=2),
            train("lr_scheduler_timescale", 5, lr_scheduler="inverse_sqrt"),
            train("learning_rate", 0.3),
            train("optimizer_type", "Lion"),
            train("optimizer_args", {"weight_decay": 0.5}),
            train("loraplus_lr_ratio", 4.0),
            train("learning_rate_patterns", {"img": "0.5x"}),
            train("max_grad_norm", 0.5),
            train("scale_weight_norms", 1.0),
            train("network_type", "dora"),
            train("network_dim", 8),
            train("network_alpha", 8.0),
            train("network_dim_patterns", {"img": 8}),
            train("network_alpha_patterns", {"img": 8.0}),
            train("lokr_factor", 4, network_type="lokr"),
            train("lokr_full_matrix", True, network_type="lokr"),
            train("network_dropout", 0.1),
            train("rank_dropout", 0.1),
            train("module_dropout", 0.1),
            train("layers", "mlp"),
            train("layer_blocks", [0, 1]),
            train("include_patterns", ["img"]),
            train("exclude_patterns", ["img"]),
            train("network_weights", START),
            train("dim_from_weights", True, network_weights=START),
            (
                "train.base_weights[].path",
                SettingEdit(
                    {"train": {"base_weights": [{"path": OTHER_START}]}}, {"train": {"base_weights": [{"path": START}]}}
                ),
            ),
            (
                "train.base_weights[].multiplier",
                SettingEdit(
                    {"train": {"base_weights": [{"path": START, "multiplier": 0.5}]}},
                    {"train": {"base_weights": [{"path": START}]}},
                ),
            ),
            train("timestep_sampling", "uniform"),
            train("discrete_flow_shift", 5.0),
            train("sigmoid_scale", 2.0),
            train("logit_mean", 1.0, timestep_sampling="logit_normal"),
            train("logit_std", 2.0, timestep_sampling="logit_normal"),
            train("mode_scale", 1.0, timestep_sampling="mode"),
            train("beta_alpha", 3.0, timestep_sampling="beta"),
            train("beta_beta", 3.0, timestep_sampling="beta"),
            train("min_timestep", 10.0),
            train("max_timestep", 900.0),
            train("preserve_distribution_shape", True, max_timestep=900.0),
            train("num_timestep_buckets", 4),
            train("weighting_scheme", "cosmap"),
            train("min_snr_gamma", 3.0, weighting_scheme="min_snr"),
            train("loss_type", "huber"),
            train("huber_schedule", "constant", loss_type="huber"),
            train("huber_c", 0.2, loss_type="huber"),
            train("i2v_prob", 0.5),
            train("caption_dropout", 0.1),
            train("save_every_n_epochs", 1),
            train("save_every_n_steps", 2),
            train("save_last_n_epochs", 1, save_every_n_epochs=1),
            train("save_last_n_steps", 1, save_every_n_steps=2),
            train("state_every_n_steps", 3),
            train("save_precision", "bfloat16"),
            train("publish_step", 6),
            train("preview_every_n_steps", 2),
            train("preview_every_n_epochs", 1),
            train("preview_at_first", True),
            train("previews", ["one"]),
            train("preview_average", True, ema_decay=0.9),
            ("train.preview.infer_steps", SettingEdit({"train": {"preview": {"infer_steps": 2}}})),
            ("train.preview.video_length", SettingEdit({"train": {"preview": {"video_length": 5}}})),
            ("train.preview.video_size", SettingEdit({"train": {"preview": {"video_size": [32, 32]}}})),
            train("ema_decay", 0.9),
            train("ema_device", "cpu"),
            validation("fraction", 0.5, fraction=0.0),
            validation("every_n_steps", 2),
            validation("every_n_epochs", 1),
            validation("at_first", True),
            validation("samples", 18),
            validation("noise_levels", "even"),
            validation("keep_best", True),
            validation("patience", 2, every_n_steps=2),
            train("trackers", ["tensorboard"]),
            train("tracker_project", "mine"),
            train("max_bad_steps", 5),
            train("quantize", "int8"),
            train("blocks_to_swap", 1),
            train("attn_mode", "sdpa"),
            train("split_attn", True),
            train("context_parallel", 2),
            train("fused_kernels", False),
            train("compile", True),
            train("compile_mode", "max-autotune", compile=True),
            train("compile_dynamic", True, compile=True),
            train("compile_backend", "eager", compile=True),
            train("compile_fullgraph", True, compile=True),
            train("gradient_checkpointing", False),
            train("gradient_checkpointing_cpu_offload", True),
            train("shard_base", True, num_processes=2),
            train("dtype", "float32"),
        ]
    ),
    **{f"train.validation.datasets[].{name}": in_validation(name) for name in OTHER if name not in NOT_VALIDATED},
}
"""Setting -> an edit of it."""
