"""Chromium without a window, for tests of pages, and scripts that look at a page from inside."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from hv15.pages.html import script_digest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def chromium(folder: Path, *words: str) -> str:
    """Run Chromium without a window and return what it prints."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={folder / 'profile'}"),
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def with_scripts(page: str, *scripts: str) -> str:
    """Add scripts to a page, and to its policy, which is the same otherwise."""
    allowed = " ".join(f"'sha256-{script_digest(each)}'" for each in scripts)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    before, mark, own = policy[1].partition("; script-src ")
    changed = f"{before}; script-src {own} {allowed}" if mark else f"{before}; script-src {allowed}"
    added = "".join(f"<script>{each}</script>" for each in scripts)
    return page.replace(policy[1], changed).replace("</body>", f"{added}</body>")
