"""How the demo's base was made: a VAE and a transformer of toy size, trained from nothing on rendered clips."""
