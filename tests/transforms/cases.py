"""What the tests of single transforms share."""

import torch


def dense_log_det(function, x):
    """log|det| of the Jacobian by autograd, one event at a time."""
    jacobians = [torch.autograd.functional.jacobian(lambda e: function(e[None])[0], event) for event in x]
    return torch.stack([torch.linalg.slogdet(j.reshape(x[0].numel(), -1)).logabsdet for j in jacobians])


def assert_layer(layer, x, *, tol=1e-9):
    """Equivariant, invertible, with the log-dets of autograd in both directions."""
    action = layer.action_in
    y, ladj = layer.call_and_ladj(x)
    back, inverse_ladj = layer.inv_call_and_ladj(y)
    assert ladj.shape == x.shape[: x.ndim - action.event_dim]
    torch.testing.assert_close(back, x, rtol=0, atol=tol)
    torch.testing.assert_close(inverse_ladj, -ladj, rtol=0, atol=tol)
    torch.testing.assert_close(ladj, dense_log_det(lambda e: layer.call_and_ladj(e)[0], x), rtol=0, atol=tol)
    elements = action.sample((len(x),), torch.Generator().manual_seed(2))
    moved, moved_ladj = layer.call_and_ladj(action.act_each(elements, x))
    torch.testing.assert_close(moved, layer.action_out.act_each(elements, y), rtol=0, atol=tol)
    torch.testing.assert_close(moved_ladj, ladj, rtol=0, atol=tol)
