# Where some experiments have a moving average and others have none, each kind has a rule.
for RUNS in PROJECT.averaged:

    rule:
        name:
            RUNS.rule("train")
        input:
            unpack(PROJECT.inputs("train")),
        output:
            **RUNS.files(PATHS.trained),
        log:
            PATHS.log("train"),
        benchmark:
            PATHS.benchmark("train")
        wildcard_constraints:
            results=RUNS.folders,
        conda:
            "environment.yaml"
        threads: PROJECT.threads("train")
        resources:
            **PROJECT.resources("train"),
            gpu=PROJECT.gpus("train", "train"),
        message:
            PROJECT.message("Training the LoRA (log: {log})", "train")
        shell:
            "job {log:q} hv15 train --spec {input.spec:q} --out {output.lora:q}"
            + EXPERIMENT
