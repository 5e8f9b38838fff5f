"""`models:` which checkpoint files are used, and where they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hv15.choices import ROLES, Role, Task, VariantName, roles_of
from hv15.config.section import PLACE, PathText, Section, raise_problems


class ModelSettings(Section):
    """The checkpoint files: your own, downloaded ones, or the demo's toy."""

    source: Literal["files", "hub", "demo"] = "files"
    """Where the models come from. `files`: the paths below. `hub`: downloaded from the Hugging Face Hub into
    `directory` when a rule needs them. `demo`: a toy that comes with hv15 and knows a few moving shapes, to try the
    workflow without a download."""

    dit: PathText | None = Field(None, json_schema_extra=PLACE)
    """The video transformer: a .safetensors file (official, ComfyUI or diffusers names) or a folder of its parts.
    Use bfloat16 or float32 weights for training; float16 ones are already rounded."""

    vae: PathText | None = Field(None, json_schema_extra=PLACE)
    """The video autoencoder, vae/diffusion_pytorch_model.safetensors of the official repository, or diffusers' one."""

    text_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """Qwen2.5-VL-7B: a single .safetensors file or a Hugging Face folder."""

    glyph_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """ByT5 for text in quotes inside a prompt: byt5_small_glyphxl as a .safetensors file or a Hugging Face folder."""

    image_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """SigLIP so400m patch14-384 for image-to-video: a .safetensors file or a Hugging Face folder. Only for task i2v."""

    tokenizer: PathText = Field("Qwen/Qwen2.5-VL-7B-Instruct", json_schema_extra=PLACE)
    """Qwen's tokenizer: a folder with tokenizer.json, or a name on the Hub with "qwen" in it (used from the local Hub
    cache, or fetched: about 7 MB)."""

    variant: Literal["auto", VariantName] = "auto"
    """Which checkpoint the dit file is: it decides the default steps, guidance and shift of sampling. `auto` reads it
    from config.json or from the path (.../720p_t2v/...); all variants have the same tensors, so say it here when the
    path does not. `source: hub` downloads this variant."""

    directory: PathText = Field("models", json_schema_extra=PLACE)
    """The folder for downloaded and demo models, in the project folder unless absolute. Choose a shared folder to
    download once for several projects."""

    revision: str = Field("main", min_length=1)
    """Branch, tag or commit of the official repository (tencent/HunyuanVideo-1.5) for `source: hub`. Name a commit to
    get the same files for ever."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelSettings:
        problems: list[tuple[tuple[str | int, ...], str]] = []
        if self.source == "hub" and self.variant == "auto":
            problems.append((("variant",), "models.source is hub: say which checkpoint to download, e.g. 720p_t2v"))
        if self.source != "files":
            text = f"is not used with models.source {self.source}: remove it, or set source: files and give all paths"
            fields = type(self).model_fields
            problems += [((name,), text) for name in ROLES if getattr(self, name) != fields[name].default]
        raise_problems(problems)
        return self

    def missing_files(self, task: Task) -> list[Role]:
        """Names of the paths which `source: files` needs for a task and which are not given."""
        return [role for role in roles_of(task) if getattr(self, role) is None] if self.source == "files" else []
