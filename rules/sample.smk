# Sampling. Each prompt is a target of its own: an edited prompt samples that prompt alone. One big model a job.


from hv15.project import CONTACT_SHEET


rule sample_spec:
    output:
        "results/samples/{name}.json",
    log:
        "results/logs/sample_spec.{name}.log",
    benchmark:
        "results/benchmarks/sample_spec.{name}.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        digest=lambda wildcards: PROJECT.sample_digest(wildcards.name),
    message:
        "Writing down what sample {wildcards.name} depends on"
    shell:
        "hv15 spec sample --name {wildcards.name:q} --out {output:q} 2>&1 | logged {log:q}"


# Latents depend on a part of the spec: another frame rate or VAE tile decodes them again, and no more.
rule denoising_spec:
    output:
        "results/samples/{name}.denoising.json",
    log:
        "results/logs/denoising_spec.{name}.log",
    benchmark:
        "results/benchmarks/denoising_spec.{name}.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        digest=lambda wildcards: PROJECT.denoising_digest(wildcards.name),
        attempt=lambda wildcards: PROJECT.denoising_attempt(wildcards.name),
    message:
        "Writing down what the latents of {wildcards.name} depend on"
    shell:
        "hv15 spec sample --denoising --attempt {params.attempt} --name {wildcards.name:q} --out {output:q} 2>&1 | logged {log:q}"


rule sample_condition:
    input:
        denoising="results/samples/{name}.denoising.json",
        spec=ancient("results/samples/{name}.json"),
        models=ancient(PROJECT.model_inputs("vae", "image_encoder")),
    output:
        "results/samples/{name}.condition.safetensors",
    log:
        "results/logs/sample_condition.{name}.log",
    benchmark:
        "results/benchmarks/sample_condition.{name}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Encoding the first image of sample {wildcards.name}"
    shell:
        "hv15 sample condition --spec {input.spec:q} --out {output:q} 2>&1 | logged {log:q}"


rule sample_latents:
    input:
        unpack(lambda wildcards: PROJECT.sample_inputs(wildcards.name)),
        denoising="results/samples/{name}.denoising.json",
        spec=ancient("results/samples/{name}.json"),
        texts=ancient(PROJECT.report("text")),
        models=ancient(PROJECT.model_inputs("dit")),
    output:
        "results/samples/{name}.latents.safetensors",
    log:
        "results/logs/sample_latents.{name}.log",
    benchmark:
        "results/benchmarks/sample_latents.{name}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    params:
        files=lambda wildcards, input: PROJECT.sample_options(wildcards.name),
    message:
        "Sampling {wildcards.name}"
    shell:
        "hv15 sample denoise --spec {input.spec:q} {params.files:q} --out {output:q} 2>&1 | logged {log:q}"


rule sample_video:
    input:
        spec="results/samples/{name}.json",
        latents="results/samples/{name}.latents.safetensors",
        models=ancient(PROJECT.model_inputs("vae")),
    output:
        "results/samples/{name}.mp4",
    log:
        "results/logs/sample_video.{name}.log",
    benchmark:
        "results/benchmarks/sample_video.{name}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Decoding {wildcards.name}"
    shell:
        "hv15 sample decode --spec {input.spec:q} --latents {input.latents:q}"
        " --out {output:q} 2>&1 | logged {log:q}"


rule sample_images:
    input:
        spec="results/samples/{name}.json",
        latents="results/samples/{name}.latents.safetensors",
        models=ancient(PROJECT.model_inputs("vae")),
    output:
        directory("results/samples/{name}.frames"),
    log:
        "results/logs/sample_images.{name}.log",
    benchmark:
        "results/benchmarks/sample_images.{name}.tsv"
    conda:
        "environment.yaml"
    resources:
        gpu=PROJECT.gpu,
    message:
        "Decoding {wildcards.name} to images"
    shell:
        "hv15 sample decode --spec {input.spec:q} --latents {input.latents:q}"
        " --out {output:q} 2>&1 | logged {log:q}"


# products.json is written anew while anything is missing: so the sheet is never passed over (see hv15/workflow.py).
rule contact_sheet:
    input:
        spec="results/products.json",
        samples=PROJECT.sheet_inputs,
    output:
        CONTACT_SHEET,
    log:
        "results/logs/contact_sheet.log",
    benchmark:
        "results/benchmarks/contact_sheet.tsv"
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Drawing the samples side by side"
    shell:
        "hv15 sample sheet --out {output:q} 2>&1 | logged {log:q}"
