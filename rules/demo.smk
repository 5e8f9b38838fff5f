# How the demo's base was made: `snakemake demo/base` trains it from nothing, about 90 minutes on two cores. A stopped
# stage goes on from its last state. The last two stages run side by side.


rule pretrain:
    output:
        "demo/pretraining/{stage}.safetensors",
    input:
        lambda wildcards: [
            f"demo/pretraining/{before}.safetensors"
            for before in {"images": [], "clips": ["images"]}.get(wildcards.stage, ["clips"])
        ],
    wildcard_constraints:
        stage="images|clips|decoder|transformer",
    log:
        "results/logs/pretrain_{stage}.log",
    benchmark:
        "results/benchmarks/pretrain_{stage}.tsv"
    conda:
        "environment.yaml"
    message:
        "Training the demo's base: {wildcards.stage} (log: {log})"
    shell:
        "hv15 demo pretrain {wildcards.stage} 2>&1 | logged {log:q}"


rule pretrained_base:
    input:
        "demo/pretraining/decoder.safetensors",
        "demo/pretraining/transformer.safetensors",
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
        "hv15 demo pretrain base --out {output:q} 2>&1 | logged {log:q}"
