"""Where the files of a cache are."""

from __future__ import annotations

from pathlib import Path

from hv15.records.cache_paths import CachePaths


def test_a_cache_has_the_names_that_it_had() -> None:
    """Another name would be another, empty cache."""
    cache = CachePaths(Path("cache"))
    found = [cache.items("latents"), cache.projects, cache.media_hashes, cache.probed_media]
    found += [cache.model_fingerprints, cache.token_counts]
    names = ["store/latents", "projects", "index.json", "probed.json", "fingerprints.json", "tokens.json"]
    assert list(map(str, found)) == [f"cache/{name}" for name in names]
