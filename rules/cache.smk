# Each shard is encoded by a job of its own. Encoded items live in the store, of which Snakemake knows nothing; a manifest
# lists what a shard has. It is an update() output, because the next run of the job reads it.


rule encode_latents:
    input:
        unpack(PROJECT.inputs("encode_latents.{shard}")),
    output:
        update(PROJECT.manifest("latents")),
    log:
        PATHS.log(PROJECT.encoding_job("encode_latents.{shard}")),
    benchmark:
        PATHS.benchmark(PROJECT.encoding_job("encode_latents.{shard}"))
    conda:
        "environment.yaml"
    threads: PROJECT.threads("encode_latents")
    resources:
        **PROJECT.resources("encode_latents"),
        gpu=PROJECT.gpu,
    message:
        PROJECT.message(
            "Encoding clips, shard {wildcards.shard}", "encode_latents.{shard}"
        )
    shell:
        "job {log:q} hv15 encode latents --shard {wildcards.shard} --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule encode_texts:
    input:
        unpack(PROJECT.inputs("encode_texts.{shard}")),
    output:
        update(PROJECT.manifest("text")),
    log:
        PATHS.log(PROJECT.encoding_job("encode_texts.{shard}")),
    benchmark:
        PATHS.benchmark(PROJECT.encoding_job("encode_texts.{shard}"))
    conda:
        "environment.yaml"
    threads: PROJECT.threads("encode_texts")
    resources:
        **PROJECT.resources("encode_texts"),
        gpu=PROJECT.gpu,
    message:
        PROJECT.message(
            "Encoding captions and prompts, shard {wildcards.shard}",
            "encode_texts.{shard}",
        )
    shell:
        "job {log:q} hv15 encode texts --shard {wildcards.shard} --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule encode_masks:
    input:
        unpack(PROJECT.inputs("encode_masks.{shard}")),
    output:
        update(PROJECT.manifest("masks")),
    log:
        PATHS.log(PROJECT.encoding_job("encode_masks.{shard}")),
    benchmark:
        PATHS.benchmark(PROJECT.encoding_job("encode_masks.{shard}"))
    conda:
        "environment.yaml"
    threads: PROJECT.threads("encode_masks")
    resources:
        **PROJECT.resources("encode_masks"),
    message:
        PROJECT.message(
            "Encoding masks, shard {wildcards.shard}", "encode_masks.{shard}"
        )
    shell:
        "job {log:q} hv15 encode masks --shard {wildcards.shard} --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT
