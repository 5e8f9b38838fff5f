# Sampling. Each prompt is a target of its own: an edited prompt samples that prompt alone. One big model a job.


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
        "hv15 sample condition --spec {input.spec:q} --out {output:q} 2>&1 | logged {log:q}"


rule sample_latents:
    input:
        unpack(PROJECT.inputs("sample_latents.{name}")),
    output:
        PATHS.latents("{name}"),
    log:
        PATHS.log("sample_latents.{name}"),
    benchmark:
        PATHS.benchmark("sample_latents.{name}")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
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
        "hv15 sample denoise --spec {input.spec:q} {params.files:q} --out {output:q} 2>&1 | logged {log:q}"


rule sample_video:
    input:
        unpack(PROJECT.inputs("sample_video.{name}")),
    output:
        PATHS.video("{name}"),
    log:
        PATHS.log("sample_video.{name}"),
    benchmark:
        PATHS.benchmark("sample_video.{name}")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Decoding {wildcards.name}: {WHY:sample_video.{wildcards.name}}"
    shell:
        "hv15 sample decode --spec {input.spec:q} --latents {input.latents:q}"
        " --out {output:q} 2>&1 | logged {log:q}"


rule sample_images:
    input:
        unpack(PROJECT.inputs("sample_images.{name}")),
    output:
        directory(PATHS.images("{name}")),
    log:
        PATHS.log("sample_images.{name}"),
    benchmark:
        PATHS.benchmark("sample_images.{name}")
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Decoding {wildcards.name} to images: {WHY:sample_images.{wildcards.name}}"
    shell:
        "hv15 sample decode --spec {input.spec:q} --latents {input.latents:q}"
        " --out {output:q} 2>&1 | logged {log:q}"


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
        "hv15 sample sheet --spec {input.spec:q} --out {output:q} 2>&1 | logged {log:q}"
