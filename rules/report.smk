# What is told of the results: a page that shows everything, and the model card for `hv15 publish`. Nothing depends on
# them, and `snakemake results/lora.safetensors` does not make them. (`--report report.zip` is Snakemake's own report.)


rule report:
    input:
        unpack(PROJECT.inputs("report")),
    output:
        report(
            PATHS.report,
            caption="report/page.rst",
            category="Report",
            labels=PROJECT.labels(),
        ),
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.benchmark("report")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message("Putting all results on one page", "report")
    shell:
        "job {log:q} hv15 stage report --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule card:
    input:
        unpack(PROJECT.inputs("card")),
    output:
        PATHS.card,
    log:
        PATHS.log("card"),
    benchmark:
        PATHS.benchmark("card")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message("Writing the model card", "card")
    shell:
        "job {log:q} hv15 stage card --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT
