# Model files that the workflow can get by itself: the demo's toy, or downloads from the Hub.


from hv15.demo.layout import DEMO_VERSION

if PROJECT.source == "demo":

    rule demo_models:
        output:
            PROJECT.demo_outputs,
        log:
            "results/logs/demo_models.log",
        benchmark:
            "results/benchmarks/demo_models.tsv"
        conda:
            "environment.yaml"
        params:
            version=DEMO_VERSION,
        message:
            "Copying the toy models that come with hv15"
        shell:
            "hv15 demo models 2>&1 | logged {log:q}"


for ROLE, FILES in PROJECT.downloads.items():

    rule:
        name:
            f"download_{ROLE}"
        output:
            update(FILES),  # a file that is there is checked and completed, never fetched anew
        log:
            f"results/logs/download_{ROLE}.log",
        benchmark:
            f"results/benchmarks/download_{ROLE}.tsv"
        conda:
            "environment.yaml"
        message:
            "Downloading {output}"
        shell:
            "hv15 download --files {output:q} 2>&1 | logged {log:q}"


# A wrong or incomplete model file is found before anything is encoded. The demo makes its own.
rule check_models:
    input:
        models=ancient(PROJECT.model_inputs(*PROJECT.roles)),
    output:
        "results/models.txt",
    log:
        "results/logs/check_models.log",
    benchmark:
        "results/benchmarks/check_models.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        identities=PROJECT.models_digest,
    message:
        "Checking the model files"
    shell:
        "hv15 check --models 2>&1 | logged {log:q} && cp {log:q} {output:q}"
