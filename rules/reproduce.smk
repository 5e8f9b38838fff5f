# A LoRA is trained again from what its file tells, and compared. `snakemake reproduce --config from=FILE`; a relative path
# starts at the project folder. It works in a folder of its own, so no product depends on it; no file of it counts as an
# output (a benchmark would), so it runs whenever it is asked for. What is done already stays.


rule reproduce:
    log:
        SHARED.log("reproduce"),
    conda:
        "environment.yaml"
    threads: PROJECT.threads("train")
    resources:
        **PROJECT.resources("train"),  # of the project's own training: the LoRA's cannot be planned before it is opened
        gpu=PROJECT.gpus("train"),
    params:
        lora=lambda wildcards: PROJECT.lora_to_reproduce,
    message:
        "Making {params.lora} again (log: {log})"
    shell:
        "job {log:q} hv15 reproduce {params.lora:q} --project ."
