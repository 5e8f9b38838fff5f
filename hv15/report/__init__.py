"""What a project shows of its results: `results/report.html`, and a model card for publishing.

- trained: the facts about the trained LoRA, from its own metadata and from what its training has measured
- charts: the curves of the training
- samples: the samples of each prompt, without and with the LoRA
- dataset: what it was trained on, in numbers
- settings: those of the training, and which of them differ from the defaults
- provenance: versions, digests and files from which all was made
- page: all of these on one page
"""
