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
    message:
        "Converting the LoRA to {wildcards.layout} names"
    shell:
        "hv15 convert {input:q} {output:q} --to {wildcards.layout} 2>&1 | tee -i {log:q}"


rule publish:
    input:
        lora="results/train.safetensors",
        others=PROJECT.products,
    output:
        "results/lora.safetensors",
    log:
        "results/logs/publish.log",
    benchmark:
        "results/benchmarks/publish.tsv"
    localrule: True
    message:
        "Publishing {output}"
    shell:
        "cp {input.lora:q} {output:q} 2>&1 | tee -i {log:q}"
