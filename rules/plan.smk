# What each stage will need on this machine's device (or on `--config runtime.device`), and how long it takes. Nothing
# depends on it; ask for results/plan.txt. It is of this machine and this moment, so asking for it always makes it again.


rule plan:
    input:
        unpack(PROJECT.inputs("plan")),
    output:
        PATHS.plan,
    log:
        PATHS.log("plan"),
    benchmark:
        PATHS.benchmark("plan")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Planning memory and time of each stage"
    shell:
        "hv15 plan --out {output:q} 2>&1 | logged {log:q}"
