# The finished product. results/lora.safetensors appears when the LoRA is trained, sampled and converted, so that asking
# for it asks for everything, and the previous one stays until then (Snakemake removes a job's old output first).


rule convert:
    input:
        "results/train.safetensors",
    output:
        "results/lora.{layout}.safetensors",
    wildcard_constraints:
        layout="comfyui|diffusers|official",
    log:
        "results/logs/convert.{layout}.log",
    benchmark:
        "results/benchmarks/convert.{layout}.tsv"
    message:
        "Converting the LoRA to {wildcards.layout} names"
    shell:
        "hv15 convert {input:q} {output:q} --to {wildcards.layout} 2>&1 | tee -i {log:q}"


rule publish:
    localrule: True
    input:
        lora="results/train.safetensors",
        others=PROJECT.products,
    output:
        "results/lora.safetensors",
    log:
        "results/logs/publish.log",
    benchmark:
        "results/benchmarks/publish.tsv"
    message:
        "Publishing {output}"
    shell:
        "cp {input.lora:q} {output:q} 2>&1 | tee -i {log:q}"
