rule train:
    input:
        unpack(PROJECT.inputs("train")),
    output:
        **PROJECT.with_average(PATHS.trained),
    log:
        PATHS.log("train"),
    benchmark:
        PATHS.benchmark("train")
    conda:
        "environment.yaml"
    threads: PROJECT.threads("train")
    resources:
        **PROJECT.resources("train"),
        gpu=PROJECT.gpus("train"),
    message:
        "Training the LoRA (log: {log}): {WHY:train}"
    shell:
        "job {log:q} hv15 train --spec {input.spec:q} --out {output.lora:q}"
