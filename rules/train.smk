# Training. The spec is a file, because Snakemake does not evaluate the params of a job whose inputs are made in the
# same run: a changed dataset would retrain only at the next call.


rule train_spec:
    output:
        "results/train.json",
    log:
        "results/logs/train_spec.log",
    benchmark:
        "results/benchmarks/train_spec.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        digest=PROJECT.train_digest,
        attempt=PROJECT.train_attempt,
    message:
        "Writing down what the training depends on"
    shell:
        "hv15 spec train --attempt {params.attempt} --out {output:q} 2>&1 | logged {log:q}"


rule train:
    input:
        spec="results/train.json",
        reports=ancient([PROJECT.report("latents"), PROJECT.report("text")]),
        models=ancient(PROJECT.model_inputs("dit")),
    output:
        "results/train.safetensors",
    log:
        "results/logs/train.log",
    benchmark:
        "results/benchmarks/train.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Training the LoRA (log: {log})"
    shell:
        "hv15 train --spec {input.spec:q} --out {output:q} 2>&1 | logged {log:q}"
