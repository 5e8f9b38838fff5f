"""What other programs do with the tensors of a LoRA file: which they load, drop or take at another strength.

Only the header and the alphas are read, so nothing here needs torch.

| module | knows |
|---|---|
| file | a file's tensors by module, and what they mean |
| verdicts | what may happen to a tensor |
| comfyui, peft_loaders, musubi | the rules of each program |
| verify | a file's report |
"""
