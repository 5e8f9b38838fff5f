from __future__ import annotations

import torch

# The models of the tests are tiny: a second thread costs them more than it gives, and results stay the same anywhere.
torch.set_num_threads(1)
