# A folder of captioned clips and one config.yaml -> results/lora.safetensors, samples and a ComfyUI file.
#
#   snakemake results/lora.safetensors        everything that the config asks for
#   snakemake -n                              what would run, and why
#   snakemake -d FOLDER results/lora.safetensors     another project
#
# The rules' `conda:` matters with `--sdm conda` only; without it they run in the environment of this snakemake.
# The rules only name files; what to encode, train and sample is decided in hv15/project.py.
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


from hv15.workflow import open_project

PROJECT = open_project(workflow, config)


wildcard_constraints:
    shard=r"\d+",
    name=r"[A-Za-z0-9][A-Za-z0-9_-]*(\.base)?",  # of a prompt; .base is its sample without the trained LoRA


include: "rules/models.smk"
include: "rules/cache.smk"
include: "rules/train.smk"
include: "rules/sample.smk"
include: "rules/publish.smk"


rule all:
    default_target: True
    input:
        "results/lora.safetensors",
