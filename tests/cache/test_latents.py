"""The keys of encoded clips."""

from __future__ import annotations

import hashlib
import json

import pytest

from hv15.cache.latents import clip_key
from hv15.data.clips import Clip


@pytest.mark.parametrize(
    "clip", [Clip(0, 9, 544, 960, "24"), Clip(17, 1, 64, 64, "", "#ffffff"), Clip(0, 5, 16, 16, "24 from 25", 'é"\\')]
)
def test_a_key_is_the_digest_of_content_and_identity(clip: Clip) -> None:
    """Another key would encode every clip of every store again."""
    media = hashlib.sha256(b"content").hexdigest()
    text = json.dumps([media, clip.identity()], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert clip_key(media, clip) == hashlib.sha256(text.encode()).hexdigest()
