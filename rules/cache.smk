# Each shard is encoded by a job of its own. Encoded items live in cache/store, which Snakemake does not know; a manifest
# says what a shard has. It is an update() output, because the next run of the job reads it.


rule encode_latents:
    input:
        checked=ancient(PROJECT.checked),
        models=ancient(PROJECT.model_inputs("vae", "image_encoder")),
    output:
        update(PROJECT.pattern("latents")),
    log:
        "results/logs/encode_latents.{shard}.log",
    benchmark:
        "results/benchmarks/encode_latents.{shard}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    params:
        needs=lambda wildcards: PROJECT.latents.shard_digest(int(wildcards.shard)),
    message:
        "Encoding clips, shard {wildcards.shard}"
    shell:
        "hv15 encode latents --shard {wildcards.shard} --expect {params.needs}"
        " --out {output:q} 2>&1 | logged {log:q}"


rule encode_texts:
    input:
        checked=ancient(PROJECT.checked),
        models=ancient(
            PROJECT.model_inputs("text_encoder", "tokenizer", "glyph_encoder")
        ),
    output:
        update(PROJECT.pattern("text")),
    log:
        "results/logs/encode_texts.{shard}.log",
    benchmark:
        "results/benchmarks/encode_texts.{shard}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    params:
        needs=lambda wildcards: PROJECT.texts.shard_digest(int(wildcards.shard)),
    message:
        "Encoding captions and prompts, shard {wildcards.shard}"
    shell:
        "hv15 encode texts --shard {wildcards.shard} --expect {params.needs}"
        " --out {output:q} 2>&1 | logged {log:q}"


# One file for all shards: training and sampling wait for it, and do not see how many shards there are.
rule report_latents:
    input:
        PROJECT.manifests("latents"),
    output:
        PROJECT.report("latents"),
    log:
        "results/logs/report_latents.log",
    benchmark:
        "results/benchmarks/report_latents.tsv"
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Listing the encoded clips and what was left out"
    shell:
        "hv15 report latents --out {output:q} 2>&1 | logged {log:q}"


rule report_texts:
    input:
        PROJECT.manifests("text"),
    output:
        PROJECT.report("text"),
    log:
        "results/logs/report_texts.log",
    benchmark:
        "results/benchmarks/report_texts.tsv"
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Listing the encoded captions and prompts"
    shell:
        "hv15 report texts --out {output:q} 2>&1 | logged {log:q}"
