from __future__ import annotations

import subprocess
import sys


def test_the_data_layer_loads_nothing_heavy_and_no_screens() -> None:
    code = (
        "import sys, pkgutil, importlib, tui.data\n"
        "for each in pkgutil.iter_modules(tui.data.__path__): importlib.import_module(f'tui.data.{each.name}')\n"
        "print(*sorted({'torch', 'transformers', 'textual', 'av', 'pynvml', 'snakemake', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
