"""A user's own module for residual layers, written for version 0.1."""

import torch
from torch import nn


class Shifted(nn.Module):
    """Half of x plus the context, whose method for contexts has its old name."""

    def __init__(self, action):
        super().__init__()
        self.context_action = action

    def forward(self, x):
        return 0.5 * x

    def lipschitz_bound(self):
        return torch.tensor(0.5)

    def given(self, context):
        return lambda x: 0.5 * (x + context)
