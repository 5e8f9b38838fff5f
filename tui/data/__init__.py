"""What the dashboard shows, read from files: incremental readers that know nothing of screens.

A reader belongs to one worker thread, looks at what was added since the last time, and raises nothing for a file that
is missing, damaged, cut or forbidden: its `error` says so. What it gives out does not change any more. Actions of a
user raise UserError. Loads no Textual and no torch.
"""
