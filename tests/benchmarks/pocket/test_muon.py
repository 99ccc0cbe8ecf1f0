"""Our Muon against torch's, which computes in bf16, and against the polar factor."""

from __future__ import annotations

import pytest
import torch

from benchmarks.pocket.muon import Muon, orthogonalised


def test_steps_are_those_of_torch_up_to_its_bf16() -> None:
    torch.manual_seed(0)
    shapes = [(24, 16), (16, 24), (24, 16), (16, 16)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [matrix.detach().clone().requires_grad_() for matrix in ours]
    optimizers = [
        Muon([{"params": ours}], lr=0.1, weight_decay=0.5),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"),
    ]
    starts = [matrix.detach().clone() for matrix in ours]
    for _ in range(3):
        for mine, yours in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            yours.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for start, mine, yours in zip(starts, ours, theirs, strict=True):
        assert (mine - yours).norm() < 0.02 * (mine - start).norm()


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8)])
def test_singular_values_come_near_one_and_the_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = 1e3 * torch.randn(shape)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ orthogonalised(matrices) @ right.mT
    values = turned.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(turned, torch.diag_embed(values), atol=1e-4, rtol=0)
    assert 0.6 < values.min() < values.max() < 1.3
