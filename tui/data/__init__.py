"""What the dashboard shows, read from files: incremental readers that know nothing of screens.

A reader belongs to one worker thread, reads what was added since the last time, and raises nothing for a file that is
missing, damaged, truncated or forbidden: its `error` says so. What it returns never changes afterwards. Actions of a
user raise UserError. Loads no Textual and no torch.
"""
