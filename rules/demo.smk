# How the demo's base was made: `snakemake demo/base`, in a clone, trains it from scratch in about an hour on two cores. Its
# stages can run side by side; a stopped one resumes from its last state.


rule pretrain:
    input:
        lambda wildcards: {
            "basis": [],
            "again": ["demo/pretraining/transformer.safetensors"],
            "detail": [
                "demo/pretraining/basis.safetensors",
                "demo/pretraining/decoder.safetensors",
            ],
            "upsampler": ["demo/pretraining/detail.safetensors"],
            "enlarger": [
                "demo/pretraining/upsampler.safetensors",
                "demo/pretraining/again.safetensors",
            ],
            "unrolled": ["demo/pretraining/enlarger.safetensors"],
            "refined": ["demo/pretraining/unrolled.safetensors"],
        }.get(wildcards.stage, ["demo/pretraining/basis.safetensors"]),
    output:
        "demo/pretraining/{stage}.safetensors",
    log:
        "results/logs/pretrain.{stage}.log",
    benchmark:
        "results/benchmarks/pretrain_{stage}.tsv"
    wildcard_constraints:
        stage="basis|encoder|decoder|transformer|again|detail|upsampler|enlarger|unrolled|refined",
    conda:
        "environment.yaml"
    message:
        "Training the demo's base: {wildcards.stage} (log: {log})"
    shell:
        "job {log:q} python -m demo_base {wildcards.stage}"


rule pretrained_base:
    input:
        expand(
            "demo/pretraining/{stage}.safetensors",
            stage=["encoder", "decoder", "again", "refined"],
        ),
    output:
        directory("demo/base"),
    log:
        "results/logs/pretrained_base.log",
    benchmark:
        "results/benchmarks/pretrained_base.tsv"
    conda:
        "environment.yaml"
    message:
        "Writing the demo's base"
    shell:
        "job {log:q} python -m demo_base base --out {output:q}"
