# Each prompt is a target of its own, so an edited prompt samples only that prompt again. Each job loads one big model.


from hv15.records.outputs import DECODED, LATENTS


rule sample_condition:
    input:
        unpack(PROJECT.inputs("sample_condition.{name}")),
    output:
        PATHS.condition("{name}"),
    log:
        PATHS.log("sample_condition.{name}"),
    benchmark:
        PATHS.benchmark("sample_condition.{name}")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Encoding the first image of sample {wildcards.name}: {WHY:sample_condition.{wildcards.name}}"
    shell:
        "job {log:q} hv15 stage condition --spec {input.spec:q} --out {output:q}"


rule sample_latents:
    input:
        unpack(PROJECT.inputs("sample_latents.{name}")),
    output:
        LATENTS.path(PATHS, "{name}"),
    log:
        PATHS.log("sample_latents.{name}"),
    benchmark:
        PATHS.benchmark("sample_latents.{name}")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpus("sample"),
    params:
        files=lambda wildcards, input: [
            word
            for key in ("lora", "condition")
            for file in input.get(key, [])
            for word in (f"--{key}", file)
        ],
    message:
        "Sampling {wildcards.name}: {WHY:sample_latents.{wildcards.name}}"
    shell:
        "job {log:q} hv15 stage denoise --spec {input.spec:q} {params.files:q} --out {output:q}"


# One rule for each kind of output that is decoded: a video, a folder of images.
for OUTPUT in DECODED:

    rule:
        name:
            OUTPUT.rule
        input:
            unpack(PROJECT.inputs(OUTPUT.rule + ".{name}")),
        output:
            (
                directory(OUTPUT.path(PATHS, "{name}"))
                if OUTPUT.is_folder
                else OUTPUT.path(PATHS, "{name}")
            ),
        log:
            PATHS.log(OUTPUT.rule + ".{name}"),
        benchmark:
            PATHS.benchmark(OUTPUT.rule + ".{name}")
        conda:
            "environment.yaml"
        resources:
            gpu=PROJECT.gpu,
        message:
            "Decoding {wildcards.name}: {WHY:" + OUTPUT.rule + ".{wildcards.name}}"
        shell:
            "job {log:q} hv15 stage decode --spec {input.spec:q} --latents {input.latents:q} --out {output:q}"


rule contact_sheet:
    input:
        unpack(PROJECT.inputs("contact_sheet")),
    output:
        PATHS.contact_sheet,
    log:
        PATHS.log("contact_sheet"),
    benchmark:
        PATHS.benchmark("contact_sheet")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Drawing the samples side by side: {WHY:contact_sheet}"
    shell:
        "job {log:q} hv15 stage sheet --spec {input.spec:q} --out {output:q}"


rule samples:
    input:
        PROJECT.samples,
