# What each stage will need on this machine's device (or on `--config runtime.device`), and how long it takes. Nothing
# depends on it; ask for results/plan.txt.


rule plan:
    output:
        "results/plan.txt",
    log:
        "results/logs/plan.log",
    benchmark:
        "results/benchmarks/plan.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        digest=PROJECT.plan_digest,
    message:
        "Planning memory and time of each stage"
    shell:
        "hv15 plan --out {output:q} 2>&1 | logged {log:q}"
