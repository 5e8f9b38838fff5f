# Model files that the workflow can get by itself: the demo's toy, or downloads from the Hub.

if PROJECT.source == "demo":

    rule demo_models:
        input:
            unpack(PROJECT.inputs("demo_models")),
        output:
            PROJECT.demo_files,
        log:
            SHARED.log("demo_models"),
        benchmark:
            SHARED.benchmark("demo_models")
        localrule: True
        conda:
            "environment.yaml"
        message:
            "Copying the toy models that come with hv15: {WHY:demo_models|}"
        shell:
            "job {log:q} hv15 demo models"


for ROLE, FILES in PROJECT.downloads.items():

    rule:
        name:
            f"download_{ROLE}"
        input:
            unpack(PROJECT.inputs(f"download_{ROLE}")),
        output:
            update(FILES),  # a file that is there is checked and completed, never fetched again
        log:
            SHARED.log(f"download_{ROLE}"),
        benchmark:
            SHARED.benchmark(f"download_{ROLE}")
        localrule: True
        conda:
            "environment.yaml"
        message:
            "Downloading {output}: {WHY:download_" + ROLE + "|}"
        shell:
            "job {log:q} hv15 download --files {output:q}"


# A wrong or incomplete model file is found before anything is encoded. The demo makes its own.
rule check_models:
    input:
        unpack(PROJECT.inputs("check_models")),
    output:
        PATHS.checked_models,
    log:
        PATHS.log("check_models"),
    benchmark:
        PATHS.benchmark("check_models")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message("Checking the model files", "check_models")
    shell:
        "job {log:q} hv15 check --models"
        + EXPERIMENT
        + " && cp {input.spec:q} {output:q}"
