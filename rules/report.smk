# What is told of the results. The page depends on all that it shows, so it comes last; nothing depends on it, and
# `snakemake results/lora.safetensors` does not make it. (`snakemake --report report.zip` is Snakemake's own report.)


rule report:
    input:
        unpack(PROJECT.inputs("report")),
    output:
        report(PATHS.report, caption="report/page.rst", category="Report"),
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.benchmark("report")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Putting all results on one page: {WHY:report}"
    shell:
        "job {log:q} hv15 stage report --spec {input.spec:q} --out {output:q}"
