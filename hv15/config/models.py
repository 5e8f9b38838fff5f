"""`models:` the checkpoint files and their locations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from hv15.choices import ENLARGING_ROLES, QWEN, ROLES, Role, VariantName
from hv15.config.section import PLACE, SAMPLING, Conflict, PathText, Section


class ModelSettings(Section):
    """The checkpoint files: your own, downloaded ones, or the demo's toy models."""

    source: Literal["files", "hub", "demo"] = Field("files", json_schema_extra=PLACE)
    """Where the models come from. `files`: the paths below. `hub`: downloaded from the Hugging Face Hub into
    `directory` when a rule needs them. `demo`: toy models that come with hv15 and know a few moving shapes, to try the
    workflow without a download."""

    dit: PathText | None = Field(None, json_schema_extra=PLACE)
    """The video transformer: a .safetensors file (official, ComfyUI or diffusers layout) or a folder with its shards.
    Use bfloat16 or float32 weights for training, because float16 weights have been rounded already."""

    vae: PathText | None = Field(None, json_schema_extra=PLACE)
    """The video autoencoder: vae/diffusion_pytorch_model.safetensors of the official or the diffusers repository."""

    text_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """Qwen2.5-VL-7B: a single .safetensors file or a Hugging Face folder."""

    glyph_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """ByT5 for quoted text in prompts: byt5_small_glyphxl as a .safetensors file or a Hugging Face folder."""

    image_encoder: PathText | None = Field(None, json_schema_extra=PLACE)
    """SigLIP so400m patch14-384 for image-to-video: a .safetensors file or a Hugging Face folder. Only for task i2v."""

    sr_dit: PathText | None = Field(None, json_schema_extra=SAMPLING)
    """The transformer of super resolution, for `sample.sr` and `hv15 upsample`: transformer/720p_sr_distilled or
    1080p_sr_distilled of the official repository, or a .safetensors file of it, such as ComfyUI's."""

    upsampler: PathText | None = Field(None, json_schema_extra=SAMPLING)
    """The latent upsampler that belongs to `sr_dit`: upsampler/720p_sr_distilled or 1080p_sr_distilled of the official
    repository, or a .safetensors file of it, such as ComfyUI's."""

    tokenizer: PathText = Field(QWEN, json_schema_extra=PLACE)
    """Qwen's tokenizer: a folder with tokenizer.json, or a name on the Hub with "qwen" in it (taken from the local Hub
    cache, or downloaded: about 7 MB)."""

    variant: Literal["auto", VariantName] = Field("auto", json_schema_extra=PLACE)
    """The checkpoint that the dit file holds, which has its own default steps, guidance and shift for sampling. `auto`
    finds it from config.json or the path (.../720p_t2v/...). All variants have the same tensors, so set it if the path
    does not name it. `source: hub` downloads this variant."""

    directory: PathText = Field("models", json_schema_extra=PLACE)
    """The folder for downloaded and demo models, in the project folder unless absolute. Use a shared folder to download
    models only once for several projects."""

    revision: str = Field("main", min_length=1, json_schema_extra=PLACE)
    """Branch, tag or commit of the official repository (tencent/HunyuanVideo-1.5) for `source: hub`. Use a commit to
    always get the same files."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.source == "hub" and self.variant == "auto":
            yield ("variant",), "models.source is hub: set the checkpoint to download, e.g. 720p_t2v"
        if self.source != "files":
            text = f"is not used with models.source {self.source}: remove it, or set source: files and all paths"
            fields = type(self).model_fields
            given = (name for name in (*ROLES, *ENLARGING_ROLES) if getattr(self, name) != fields[name].default)
            yield from (((name,), text) for name in given)

    def missing_files(self, roles: Iterable[Role]) -> list[Role]:
        """Return the paths of these models that `source: files` needs but that are not set."""
        return [role for role in roles if getattr(self, role) is None] if self.source == "files" else []
