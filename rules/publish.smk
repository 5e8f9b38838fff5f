# The finished product. results/lora.safetensors appears when the LoRA is trained, sampled and converted, so that asking
# for it asks for everything, and the previous one stays until then (Snakemake removes a job's old output first).
# With train.publish_step, it is the LoRA after that step, which the training has kept.


rule keep_checkpoint:
    input:
        unpack(PROJECT.inputs("keep_checkpoint.{step}")),
    output:
        **PROJECT.with_average(PATHS.checkpoint_lora("{step}")),
    log:
        PATHS.log("keep_checkpoint.{step}"),
    benchmark:
        PATHS.benchmark("keep_checkpoint.{step}")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Keeping the LoRA of step {wildcards.step}: {WHY:keep_checkpoint.{wildcards.step}}"
    shell:
        "job {log:q} hv15 stage lora --spec {input.spec:q} --out {output.lora:q}"


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
        "Converting the LoRA to {wildcards.layout} names: {WHY:convert.{wildcards.layout}}"
    shell:
        "job {log:q} hv15 export --lora {input.lora:q} --out {output:q} --to {wildcards.layout}"


rule publish:
    input:
        unpack(PROJECT.inputs("publish")),
    output:
        **PROJECT.with_average(PATHS.lora),
    log:
        PATHS.log("publish"),
    benchmark:
        PATHS.benchmark("publish")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Publishing {output}: {WHY:publish}"
    shell:
        "job {log:q} copy {input.lora:q} {output:q}"
