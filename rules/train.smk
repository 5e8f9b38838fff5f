rule train:
    input:
        unpack(PROJECT.inputs("train")),
    output:
        PATHS.trained,
    log:
        PATHS.log("train"),
    benchmark:
        PATHS.benchmark("train")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    params:
        why=PROJECT.why("train"),
    message:
        "Training the LoRA (log: {log}): {params.why}"
    shell:
        "hv15 train --spec {input.spec:q} --out {output:q} 2>&1 | logged {log:q}"
