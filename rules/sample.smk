# Each prompt is a target of its own, so an edited prompt samples only that prompt again. Where several are due, the job of
# a shard makes them with one load of each model, and leaves them for the samples' own jobs, which only take them then.
# The LoRA of each step that a training keeps can be sampled in the same way, as results/checkpoints/STEP/NAME.mp4.


from hv15.records.outputs import DECODED, LATENTS, enlarged, subject
from hv15.records.twins import TWIN


rule condition_shard:
    input:
        unpack(PROJECT.inputs("condition_shard.{shard}")),
    output:
        temp(PATHS.made("condition_shard.{shard}")),
    log:
        PATHS.log("condition_shard.{shard}"),
    benchmark:
        PATHS.benchmark("condition_shard.{shard}")
    conda:
        "environment.yaml"
    threads: PROJECT.threads("condition")
    resources:
        **PROJECT.resources("condition", "condition_shard.{shard}"),
        gpu=PROJECT.gpu,
    message:
        PROJECT.message(
            "Encoding first images, shard {wildcards.shard}", "condition_shard.{shard}"
        )
    shell:
        "job {log:q} hv15 stage shard --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule sample_condition:
    input:
        unpack(PROJECT.inputs("sample_condition.{name}")),
    output:
        PATHS.condition("{name}"),
    log:
        PATHS.log("sample_condition.{name}"),
    benchmark:
        PATHS.benchmark("sample_condition.{name}")
    wildcard_constraints:
        name=PROJECT.condition_pattern,
    conda:
        "environment.yaml"
    threads: PROJECT.threads("condition")
    resources:
        **PROJECT.resources("condition"),
        gpu=PROJECT.gpu_of("sample_condition.{name}"),
    params:
        made=str(PATHS.before_taken(PATHS.condition("{name}"))),
    message:
        PROJECT.message(
            "Encoding the first image of sample {wildcards.name}",
            "sample_condition.{name}",
        )
    shell:
        "job {log:q} taken {params.made:q} {output:q} hv15 stage condition --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule sample_shard:
    input:
        unpack(PROJECT.inputs("sample_shard.{shard}")),
    output:
        temp(PATHS.made("sample_shard.{shard}")),
    log:
        PATHS.log("sample_shard.{shard}"),
    benchmark:
        PATHS.benchmark("sample_shard.{shard}")
    conda:
        "environment.yaml"
    threads: PROJECT.threads("sample")
    resources:
        **PROJECT.resources("sample", "sample_shard.{shard}"),
        gpu=PROJECT.gpus("sample"),
    message:
        PROJECT.message("Sampling, shard {wildcards.shard}", "sample_shard.{shard}")
    shell:
        "job {log:q} hv15 stage shard --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


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
        threads: PROJECT.threads("sample")
        resources:
            **PROJECT.resources("sample"),
            gpu=PROJECT.gpus("sample", STAGE),
        params:
            made=str(PATHS.before_taken(LATENTS.path(PATHS, "{name}", STEP))),
            files=PROJECT.options_of(TWIN, "lora", "condition"),
        message:
            PROJECT.message(f"Sampling {WHICH}", STAGE)
        shell:
            "job {log:q} taken {params.made:q} {output:q}"
            " hv15 stage denoise --spec {input.spec:q} {params.files:q} --out {output:q}"
            + EXPERIMENT

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
                    else report(
                        OUTPUT.path(PATHS, "{name}", STEP),
                        caption="report/sample.rst",
                        category="Checkpoints" if STEP else "Samples",
                        labels=PROJECT.labels(
                            sample="{name}", **({"step": "{step}"} if STEP else {})
                        ),
                    )
                ),
            log:
                PATHS.log(STAGE),
            benchmark:
                PATHS.benchmark(STAGE)
            conda:
                "environment.yaml"
            threads: PROJECT.threads("decode")
            resources:
                **PROJECT.resources("decode"),
                gpu=PROJECT.gpu_of(STAGE),
            params:
                made=str(PATHS.before_taken(OUTPUT.path(PATHS, "{name}", STEP))),
                files=PROJECT.options_of(TWIN, "latents"),
            message:
                PROJECT.message(f"Decoding {WHICH}", STAGE)
            shell:
                "job {log:q} taken {params.made:q} {output:q}"
                " hv15 stage decode --spec {input.spec:q} {params.files:q} --out {output:q}"
                + EXPERIMENT


# Super resolution, with sample.sr: NAME.sr.mp4 beside NAME.mp4, from its latents. A shard has other models than above.
rule upsample_shard:
    input:
        unpack(PROJECT.inputs("upsample_shard.{shard}")),
    output:
        temp(PATHS.made("upsample_shard.{shard}")),
    log:
        PATHS.log("upsample_shard.{shard}"),
    benchmark:
        PATHS.benchmark("upsample_shard.{shard}")
    conda:
        "environment.yaml"
    threads: PROJECT.threads("upsample")
    resources:
        **PROJECT.resources("upsample", "upsample_shard.{shard}"),
        gpu=PROJECT.gpus("sample"),
    message:
        PROJECT.message(
            "Super resolution, shard {wildcards.shard}", "upsample_shard.{shard}"
        )
    shell:
        "job {log:q} hv15 stage shard --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


rule upsample_latents:
    input:
        unpack(PROJECT.inputs("upsample_latents.{name}")),
    output:
        LATENTS.path(PATHS, enlarged("{name}")),
    log:
        PATHS.log("upsample_latents.{name}"),
    benchmark:
        PATHS.benchmark("upsample_latents.{name}")
    conda:
        "environment.yaml"
    threads: PROJECT.threads("upsample")
    resources:
        **PROJECT.resources("upsample"),
        gpu=PROJECT.gpus("sample", "upsample_latents.{name}"),
    params:
        made=str(PATHS.before_taken(LATENTS.path(PATHS, enlarged("{name}")))),
        files=PROJECT.options_of(TWIN, "low", "lora", "condition"),
    message:
        PROJECT.message(
            "Super resolution of {wildcards.name}", "upsample_latents.{name}"
        )
    shell:
        "job {log:q} taken {params.made:q} {output:q}"
        " hv15 stage upsample --spec {input.spec:q} {params.files:q} --out {output:q}"
        + EXPERIMENT


for OUTPUT in DECODED:
    STAGE = f"{OUTPUT.enlarging_rule}.{{name}}"

    rule:
        name:
            OUTPUT.enlarging_rule
        input:
            unpack(PROJECT.inputs(STAGE)),
        output:
            (
                directory(OUTPUT.path(PATHS, enlarged("{name}")))
                if OUTPUT.is_folder
                else report(
                    OUTPUT.path(PATHS, enlarged("{name}")),
                    caption="report/enlarged.rst",
                    category="Samples",
                    labels=PROJECT.labels(sample="{name}, enlarged"),
                )
            ),
        log:
            PATHS.log(STAGE),
        benchmark:
            PATHS.benchmark(STAGE)
        conda:
            "environment.yaml"
        threads: PROJECT.threads("decode_large")
        resources:
            **PROJECT.resources("decode_large"),
            gpu=PROJECT.gpu_of(STAGE),
        params:
            made=str(PATHS.before_taken(OUTPUT.path(PATHS, enlarged("{name}")))),
            files=PROJECT.options_of(TWIN, "latents"),
        message:
            PROJECT.message("Decoding the enlarged {wildcards.name}", STAGE)
        shell:
            "job {log:q} taken {params.made:q} {output:q}"
            " hv15 stage decode --spec {input.spec:q} {params.files:q} --out {output:q}"
            + EXPERIMENT


rule contact_sheet:
    input:
        unpack(PROJECT.inputs("contact_sheet")),
    output:
        report(
            PATHS.contact_sheet,
            caption="report/contact_sheet.rst",
            category="Samples",
            labels=PROJECT.labels(sample="all, a few frames of each"),
        ),
    log:
        PATHS.log("contact_sheet"),
    benchmark:
        PATHS.benchmark("contact_sheet")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message("Drawing the samples side by side", "contact_sheet")
    shell:
        "job {log:q} hv15 stage sheet --spec {input.spec:q} --out {output:q}"
        + EXPERIMENT


# With sample.strengths or sample.compare, instead of the contact sheet.
rule sample_grid:
    input:
        unpack(PROJECT.inputs("sample_grid")),
    output:
        sheet=PATHS.sample_grid,
        video=PATHS.sample_film,
    log:
        PATHS.log("sample_grid"),
    benchmark:
        PATHS.benchmark("sample_grid")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message(
            "Drawing the samples of all strengths and LoRAs side by side",
            "sample_grid",
        )
    shell:
        "job {log:q} hv15 stage grid --spec {input.spec:q} --out {output.sheet:q} --video {output.video:q}"
        + EXPERIMENT


rule samples:
    input:
        PROJECT.samples,


rule checkpoint_grid:
    input:
        unpack(PROJECT.inputs("checkpoint_grid")),
    output:
        sheet=report(
            PATHS.checkpoint_sheet,
            caption="report/checkpoint_grid.rst",
            category="Checkpoints",
            labels=PROJECT.labels(sample="all, a few frames of each", step="all"),
        ),
        video=report(
            PATHS.checkpoint_film,
            caption="report/checkpoint_grid.rst",
            category="Checkpoints",
            labels=PROJECT.labels(sample="all", step="all"),
        ),
    log:
        PATHS.log("checkpoint_grid"),
    benchmark:
        PATHS.benchmark("checkpoint_grid")
    localrule: True
    conda:
        "environment.yaml"
    message:
        PROJECT.message(
            "Drawing the samples of all checkpoints side by side", "checkpoint_grid"
        )
    shell:
        "job {log:q} hv15 stage grid --spec {input.spec:q} --out {output.sheet:q} --video {output.video:q}"
        + EXPERIMENT
