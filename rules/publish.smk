# The finished product. results/lora.safetensors appears when the LoRA is trained, sampled and converted, so that asking
# for it asks for everything, and the previous one stays until then (Snakemake removes a job's old output first).


rule convert:
    input:
        "results/train.safetensors",
    output:
        "results/lora.{layout}.safetensors",
    log:
        "results/logs/convert.{layout}.log",
    benchmark:
        "results/benchmarks/convert.{layout}.tsv"
    wildcard_constraints:
        layout="comfyui|diffusers|official",
    conda:
        "environment.yaml"
    message:
        "Converting the LoRA to {wildcards.layout} names"
    shell:
        "hv15 convert {input:q} {output:q} --to {wildcards.layout} 2>&1 | logged {log:q}"


# As for training, what belongs to the product is a file: a new prompt also needs its text encoded, and a job whose
# inputs are made in the same run is not asked whether its set of inputs has changed.
rule publish_spec:
    output:
        "results/products.json",
    log:
        "results/logs/publish_spec.log",
    benchmark:
        "results/benchmarks/publish_spec.tsv"
    localrule: True
    conda:
        "environment.yaml"
    params:
        digest=PROJECT.products_digest,
        attempt=PROJECT.products_attempt,
    message:
        "Writing down which samples and conversions belong to the LoRA"
    shell:
        "hv15 spec products --attempt {params.attempt} --out {output:q} 2>&1 | logged {log:q}"


rule publish:
    input:
        spec="results/products.json",
        lora="results/train.safetensors",
        others=PROJECT.products,
    output:
        "results/lora.safetensors",
    log:
        "results/logs/publish.log",
    benchmark:
        "results/benchmarks/publish.tsv"
    localrule: True
    conda:
        "environment.yaml"
    message:
        "Publishing {output}"
    shell:
        "{{ cp {input.lora:q} {output:q}.part && mv {output:q}.part {output:q}; }} 2>&1 | logged {log:q}"
