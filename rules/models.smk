# Model files that the workflow can get by itself: the demo's tiny models, or downloads from the Hub.


if PROJECT.settings.models.source == "demo":

    rule demo_models:
        output:
            PROJECT.demo_outputs,
        log:
            "results/logs/demo_models.log",
        benchmark:
            "results/benchmarks/demo_models.tsv"
        message:
            "Making tiny random models in the official file layouts"
        shell:
            "hv15 demo models {PROJECT.options:q} 2>&1 | tee -i {log:q}"


if PROJECT.settings.models.source == "hub":

    rule download:
        output:
            PROJECT.download_pattern,
        log:
            "results/logs/download.{repo}.{file}.log",
        benchmark:
            "results/benchmarks/download.{repo}.{file}.tsv"
        wildcard_constraints:
            repo="[^/]+/[^/]+",
        message:
            "Downloading {wildcards.file} of {wildcards.repo}"
        shell:
            "hv15 download {PROJECT.options:q} {output:q} 2>&1 | tee -i {log:q}"
