"""Makes the demo's base: a VAE and a transformer of toy size, trained from scratch on rendered clips.

It is only in the repository; the installed package has the finished base (hv15/demo/base).
"""
