# The experiments of the config beside one another: settings, numbers, curves, samples. It is made when all of them are there.


rule experiments:
    input:
        PROJECT.all_experiments,


if PROJECT.compares:

    rule comparison:
        input:
            unpack(PROJECT.inputs("comparison")),
        output:
            report(
                PROJECT.comparison,
                caption="report/comparison.rst",
                category="Comparison",
            ),
        log:
            SHARED.log("comparison"),
        benchmark:
            SHARED.benchmark("comparison")
        localrule: True
        conda:
            "environment.yaml"
        message:
            "Comparing the experiments: {WHY:comparison|}"
        shell:
            "job {log:q} hv15 stage comparison --spec {input.spec:q} --out {output[0]:q}"
