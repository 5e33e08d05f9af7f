"""Weights for tests of what holds whatever they are."""

import torch

from k2chi.nets.weights import write


def random_weights(path, card, size=0.02):
    """A file of weights near those that a network starts from; data consistency still leads."""
    torch.manual_seed(0)
    network = card.network.build()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(size * torch.randn_like(p))
    write(card, network.state_dict(), path)
    return str(path)
