# reference.py - what the ranks of the tests train, and the same training without anything distributed, flipped by hand.

import torch

from gloo import hash_of
from training import OPTIMIZERS, WIDTH, Model


def batches(rank, seed=7):
    """Each rank's own data."""
    data = torch.Generator().manual_seed(seed + rank)
    while True:
        batch = torch.randn(4, WIDTH, generator=data)
        yield batch, batch.sum(1, keepdim=True)


def make(optimizer="adamw", frozen=()):
    """A model in which what begins with one of `frozen` is, and its optimizer, which has everything."""
    torch.manual_seed(1)
    model = Model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(tuple(frozen))
    return model, OPTIMIZERS[optimizer](model.parameters())


def by_hand(flips, steps, accumulate=1, **options):
    """Hashes of what two ranks must have after each step: the same training without DDP, with these flips."""
    model, optimizer = make(**options)
    data = [batches(0), batches(1)]
    hashes = []
    for step in range(steps):
        for at, prefixes, requires_grad in flips:
            for name, parameter in model.named_parameters():
                if at == step and name.startswith(prefixes):
                    parameter.requires_grad, parameter.grad = requires_grad, None
        gradients = []
        for rank in range(2):
            for _ in range(accumulate):
                batch, target = next(data[rank])
                (model(batch) - target).square().mean().backward()
            gradients.append([p.grad for p in model.parameters()])
            optimizer.zero_grad()
        for parameter, one, other in zip(model.parameters(), *gradients):
            parameter.grad = one / 2 + other / 2 if parameter.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()
        hashes.append(hash_of(model))
    return hashes
