"""What the tests of carried probes share: an estimated log-det is the same for all images of an event."""

import torch


def log_det(layer, x):
    return layer.inv_call_and_ladj(x)[1].detach()


def assert_exactly_invariant(layer, x, images, estimator, *, lipschitz, broken):
    """The estimate of the layer is that of all images, which it would not be with the same probes everywhere.

    ``images`` gives random images of x for a seed, and ``broken`` is how far the plain estimator is off at the least.
    """
    expected = log_det(layer, x)
    for seed in range(4):
        torch.testing.assert_close(log_det(layer, images(seed)), expected, rtol=0, atol=1e-10)
    event_dim = layer.action_in.event_dim
    plain = [
        estimator(layer.branch, each, event_dim, lipschitz=lipschitz, training=False)[1].detach()
        for each in (x, images(0))
    ]
    assert (plain[0] - plain[1]).abs().max() > broken  # the same probes everywhere break the invariance
