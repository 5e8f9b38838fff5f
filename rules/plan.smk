# What each stage will need on this machine's device (or on `--config runtime.device`), and how long it takes. Nothing
# depends on it; ask for results/plan.txt. It holds for this machine at this moment, so it is made whenever it is asked for.


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
        "job {log:q} hv15 plan --out {output:q}" + EXPERIMENT
