"""How the demo's base was made: a VAE and a transformer of toy size, trained from nothing on rendered clips.

It needs a clone: the installed package carries the finished base (hv15/demo/base) only.
"""
