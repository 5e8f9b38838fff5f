# Each prompt is a target of its own, so an edited prompt samples only that prompt again. Each job loads one big model.
# The LoRA of each step that a training keeps can be sampled in the same way, as results/checkpoints/STEP/NAME.mp4.


from hv15.records.outputs import DECODED, LATENTS, subject


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


# Of the published LoRA, and of that after a step.
for STEP in (None, "{step}"):
    STAGE = LATENTS.rule_of(STEP) + "." + subject("{name}", STEP)
    WHICH = "{wildcards.name}" + (" of step {wildcards.step}" if STEP else "")

    rule:
        name:
            LATENTS.rule_of(STEP)
        input:
            unpack(PROJECT.inputs(STAGE)),
        output:
            LATENTS.path(PATHS, "{name}", STEP),
        log:
            PATHS.log(STAGE),
        benchmark:
            PATHS.benchmark(STAGE)
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
            "Sampling " + WHICH + ": {WHY:" + STAGE.replace("{", "{wildcards.") + "}"
        shell:
            "job {log:q} hv15 stage denoise --spec {input.spec:q} {params.files:q} --out {output:q}"

    # One rule for each kind of output that is decoded: a video, a folder of images.
    for OUTPUT in DECODED:
        STAGE = OUTPUT.rule_of(STEP) + "." + subject("{name}", STEP)

        rule:
            name:
                OUTPUT.rule_of(STEP)
            input:
                unpack(PROJECT.inputs(STAGE)),
            output:
                (
                    directory(OUTPUT.path(PATHS, "{name}", STEP))
                    if OUTPUT.is_folder
                    else OUTPUT.path(PATHS, "{name}", STEP)
                ),
            log:
                PATHS.log(STAGE),
            benchmark:
                PATHS.benchmark(STAGE)
            conda:
                "environment.yaml"
            resources:
                gpu=PROJECT.gpu,
            message:
                "Decoding "
                + WHICH
                + ": {WHY:"
                + STAGE.replace("{", "{wildcards.")
                + "}"
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


rule checkpoint_grid:
    input:
        unpack(PROJECT.inputs("checkpoint_grid")),
    output:
        sheet=PATHS.checkpoint_sheet,
        video=PATHS.checkpoint_film,
    log:
        PATHS.log("checkpoint_grid"),
    benchmark:
        PATHS.benchmark("checkpoint_grid")
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Drawing the samples of all checkpoints side by side: {WHY:checkpoint_grid}"
    shell:
        "job {log:q} hv15 stage grid --spec {input.spec:q} --out {output.sheet:q} --video {output.video:q}"
