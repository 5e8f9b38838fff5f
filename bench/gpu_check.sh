#!/usr/bin/env bash
# The self-test on a bare machine: torch, no network, this tree unpacked, nothing installed and nothing left behind.
#
#     bench/gpu_check.sh [FOLDER [WHEELS]]
#
# FOLDER gets the report and everything else that is written; by default $OUT, or ./report. WHEELS is a folder of
# wheels for what the machine lacks of pydantic, safetensors, einops and numpy (and of bitsandbytes, transformers,
# nvidia-ml-py, flash-attn, ..., without which some checks are skipped); by default $WHEELS. MINUTES is the time for
# the checks (7), PYTHON the interpreter (python3). It ends after 8 minutes at the latest, and the report is readable
# whenever it ends. `hv15 plan --rates FOLDER/rates.json` plans with what was measured. The exit code is that of the
# self-test: 1 if a check failed.
set -u

tree=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-${OUT:-report}}
wheels=${2:-${WHEELS:-}}
python=${PYTHON:-python3}
mkdir -p "$folder" || exit 2
folder=$(cd "$folder" && pwd)
scratch=$folder/scratch
mkdir -p "$scratch"
trap 'rm -rf "$scratch"' EXIT

# Packages that were installed by `pip install --user` are found although HOME is another folder
export PYTHONUSERBASE=${PYTHONUSERBASE:-${HOME:-/root}/.local}
# Whatever a library would keep in the home folder or in /tmp
export HOME=$scratch TMPDIR=$scratch XDG_CACHE_HOME=$scratch XDG_CONFIG_HOME=$scratch
export TRITON_CACHE_DIR=$scratch/triton TORCHINDUCTOR_CACHE_DIR=$scratch/inductor
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH}

if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$scratch/packages" "$wheels"/*.whl \
        2> "$folder/pip.txt" || echo "some wheels cannot be installed: see $folder/pip.txt"
    export PYTHONPATH=$tree:$scratch/packages${PYTHONPATH#"$tree"}
fi

{ timeout 10 nvidia-smi; timeout 10 nvidia-smi -q; timeout 10 nvidia-smi topo -m; } > "$folder/nvidia-smi.txt" 2>&1
timeout 30 "$python" -m torch.utils.collect_env > "$folder/environment.txt" 2>&1

# TERM ends it at once, and KILL one that a hung driver holds
timeout --signal=TERM --kill-after=10 $((470 - SECONDS)) \
    "$python" -m hv15.selftest --minutes "${MINUTES:-7}" --out "$folder" 2>&1 | tee "$folder/output.txt"
exit "${PIPESTATUS[0]}"
