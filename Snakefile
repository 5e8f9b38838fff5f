# A folder of captioned clips and one config.yaml -> results/lora.safetensors, samples and a ComfyUI file.
#
#   snakemake results/lora.safetensors        everything that the config asks for
#   snakemake                                 the same, and results/report.html, a page that shows it
#   snakemake -n                              what would run, and why
#   snakemake -d FOLDER results/lora.safetensors     another project
#
# The rules only name files. What has to run is decided in hv15/workflow/planner.py, from what the products record about
# themselves. So nothing is lost with `.snakemake`, and a copied or moved project is up to date.
# The rules' `conda:` matters with `--sdm conda` only, and `container:` with `--sdm apptainer`; without them they run in the
# environment of this snakemake.
from snakemake.utils import min_version

min_version("9.20")


from hv15.operating_system import require_linux

require_linux()

from hv15.home import clone
from hv15.runs.job_shell import prefix
from hv15.workflow import open_project
from hv15.workflow.rule_names import OF, RUN

# hv15 reads config.yaml itself, so that each mistake in it is reported with its line; `config` is what the command line adds.
PROJECT = open_project(workflow, config)
# With experiments, each of these paths begins with the wildcard {results}: the folder of the results of one of them.
PATHS = PROJECT.paths
SHARED = PROJECT.shared  # paths of what is made once for all experiments
WHY = PROJECT.why  # in a message, {WHY:train|} is why that stage runs
EXPERIMENT = PROJECT.experiment_option  # of the commands, if there are experiments

# `job` (hv15/runs/job.sh) sends its output to the terminal and to its log. Why it failed is written beside the log.
shell.prefix(prefix())


# Snakemake's own report (`snakemake --report report.zip`) begins with it. Its captions are in rules/report.
report: "rules/report/workflow.rst"


# The image that runtime.container names.
container: PROJECT.container


wildcard_constraints:
    results=PROJECT.folder_pattern,
    settings="[0-9a-f]+",
    shard=r"\d+",
    step=r"\d+",
    name=PROJECT.sample_pattern,


include: "rules/models.smk"
include: "rules/plan.smk"
include: "rules/cache.smk"
include: "rules/train.smk"
include: "rules/sample.smk"
include: "rules/publish.smk"
include: "rules/experiments.smk"
include: "rules/reproduce.smk"
include: "rules/report.smk"


if clone():  # demo_base/, which makes the demo's base, is not in a wheel

    include: "rules/demo.smk"


rule all:
    default_target: True
    input:
        PROJECT.everything,
