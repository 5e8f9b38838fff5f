# The finished product. results/lora.safetensors appears when the LoRA is trained, sampled and converted, so that asking
# for it asks for everything, and the previous one stays until then (Snakemake removes a job's old output first).
# With train.publish_step, it is the LoRA after that step, which the training has kept.


# Where some experiments have a moving average and others have none, each kind has a rule.
for RUNS in PROJECT.averaged:

    rule:
        name:
            RUNS.rule("keep_checkpoint")
        input:
            unpack(PROJECT.inputs("keep_checkpoint.{step}")),
        output:
            **RUNS.files(PATHS.checkpoint_lora("{step}")),
        log:
            PATHS.log("keep_checkpoint.{step}"),
        benchmark:
            PATHS.benchmark("keep_checkpoint.{step}")
        wildcard_constraints:
            results=RUNS.folders,
        localrule: True
        conda:
            "environment.yaml"
        message:
            PROJECT.message(
                "Keeping the LoRA of step {wildcards.step}", "keep_checkpoint.{step}"
            )
        shell:
            "job {log:q} hv15 stage lora --spec {input.spec:q} --out {output.lora:q}"
            + EXPERIMENT


rule convert:
    input:
        unpack(PROJECT.inputs("convert.{layout}")),
    output:
        PATHS.converted("{layout}", PROJECT.output_name),
    log:
        PATHS.log("convert.{layout}"),
    benchmark:
        PATHS.benchmark("convert.{layout}")
    wildcard_constraints:
        layout="comfyui|diffusers|official",
    conda:
        "environment.yaml"
    threads: PROJECT.threads("convert")
    resources:
        **PROJECT.resources("convert"),
    message:
        PROJECT.message(
            "Converting the LoRA to {wildcards.layout} names", "convert.{layout}"
        )
    shell:
        "job {log:q} hv15 export --lora {input.lora:q} --out {output:q} --to {wildcards.layout}"
        + EXPERIMENT


# Where some experiments have a moving average and others have none, each kind has a rule.
for RUNS in PROJECT.averaged:

    rule:
        name:
            RUNS.rule("publish")
        input:
            unpack(PROJECT.inputs("publish")),
        output:
            **RUNS.files(PATHS.lora),
        log:
            PATHS.log("publish"),
        benchmark:
            PATHS.benchmark("publish")
        wildcard_constraints:
            results=RUNS.folders,
        localrule: True
        conda:
            "environment.yaml"
        message:
            PROJECT.message("Publishing {output}", "publish")
        shell:
            "job {log:q} copy {input.lora:q} {output:q}"
