"""Lightning's own callbacks do what the settings of fit do: averages of weights, best weights, early stopping."""

import lightning
import pyro
import pyro.distributions as dist
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch.utils.data import DataLoader, TensorDataset

from pyro_gflows.lightning import FlowData, FlowModule
from pyro_gflows.training import ELBO, Adam, Constant, FitSettings, Validation, fit
from tests.lightning.curves import QUIET, SETTINGS, TRAIN, VALIDATION, Curve, same_weights, trained
from tests.small_flows import small_flow
from tests.training.test_elbo import ROWS, ModuleGuide, X, model

pytestmark = pytest.mark.long


def weights(flow):
    return torch.cat([weight.detach().flatten() for weight in flow.parameters()])


def test_the_moving_average_of_the_weights():
    """The mean after every step is 0.8 of the last mean and 0.2 of the weights, from the first step on."""
    expected, passed = small_flow(), []

    def note(step, losses, flow):
        passed.append(weights(flow))

    fit(expected, TRAIN, settings=SETTINGS, callbacks=note, progress=False)
    average = passed[0]
    for later in passed[1:]:
        average = 0.8 * average + 0.2 * later
    curve, flow = trained(callbacks=[EMAWeightAveraging(decay=0.8)], val_check_interval=20)
    torch.testing.assert_close(weights(flow), average)
    with torch.no_grad():
        nll = -flow(VALIDATION).mean().item()
    assert curve.validation == [(20, pytest.approx(nll, rel=1e-12))]  # of the average, and after it training goes on
    assert not torch.allclose(average, passed[-1])


def test_early_stopping_and_the_best_weights(tmp_path):
    """A rate so high that the loss rises again; the loss is best at one of the first validations."""
    settings = FitSettings(
        steps=60, batch_size=20, optimizer=Adam(lr=0.3), schedule=Constant(), validation=Validation(every=2)
    )
    best = ModelCheckpoint(tmp_path, monitor="validation_nll", filename="best")
    early = EarlyStopping("validation_nll", patience=3)
    curve, _ = trained(settings=settings, callbacks=[best, early], enable_checkpointing=True)
    values = [value for _, value in curve.validation]
    assert len(values) < 30 and len(values) == values.index(min(values)) + 4
    assert float(best.best_model_score) == pytest.approx(min(values), rel=1e-6)
    flow = small_flow(seed=4)
    FlowModule.load_from_checkpoint(best.best_model_path, objective=flow, settings=settings)
    with torch.no_grad():
        assert -flow.eval()(VALIDATION).mean().item() == pytest.approx(min(values), rel=1e-12)


def test_a_logger_has_the_losses_and_the_rates(tmp_path):
    logger = CSVLogger(tmp_path)
    monitor = LearningRateMonitor("step")
    curve, _ = trained(logger=logger, callbacks=[monitor], log_every_n_steps=1)
    lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    table = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    losses = [float(row["train"]) for row in table if row["train"]]
    assert losses == pytest.approx([value for _, value in curve.train], rel=1e-6)
    assert [float(row["validation_nll"]) for row in table if row["validation_nll"]] == pytest.approx(
        [value for _, value in curve.validation], rel=1e-6
    )
    rates = [float(row["lr-Adam"]) for row in table if row["lr-Adam"]]
    wanted = [SETTINGS.optimizer.lr * SETTINGS.schedule(step / SETTINGS.steps) for step in range(20)]
    assert rates == pytest.approx(wanted, rel=1e-6)


def test_svi_with_a_loader_of_rows_and_with_flow_data():
    """A batch of a TensorDataset is the tuple of the arguments of model and guide."""
    settings = FitSettings(steps=8, batch_size=ROWS, optimizer=Adam(lr=0.1), schedule=Constant())
    options = {**QUIET, "enable_checkpointing": False, "max_steps": 8}
    runs = []
    for data in (
        DataLoader(TensorDataset(X), batch_size=ROWS, generator=torch.Generator()),
        FlowData(X, X),
        None,  # the arguments of the first call
    ):
        guide, curve = ModuleGuide(), Curve()
        objective = ELBO(model, guide, args=(X,))
        module = FlowModule(objective, settings=settings)
        where = {"datamodule": data} if isinstance(data, FlowData) else {"train_dataloaders": data}
        lightning.Trainer(**options, callbacks=[curve]).fit(module, **where)
        runs.append((curve, guide))
    curves = [[value for _, value in curve.train] for curve, _ in runs]
    assert curves[0] == pytest.approx(curves[1], rel=1e-9) and curves[0] == pytest.approx(curves[2], rel=1e-9)
    assert same_weights(runs[0][1], runs[1][1], tolerance=1e-9) and len(pyro.get_param_store()) == 0

    reference = ELBO(model, ModuleGuide(), args=(X,))
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.1, betas=(0.9, 0.99))
    torch.manual_seed(settings.seed)
    for value in curves[0]:
        optimizer.zero_grad()
        loss = reference((X,))
        assert loss.item() == pytest.approx(value, rel=1e-9)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 10.0)
        optimizer.step()
    assert same_weights(reference.module.guide, runs[0][1], tolerance=1e-9)


def test_weights_that_a_lazy_guide_makes_in_the_first_step_are_refused():
    """An optimizer would not know them, and they would stay as they are without a word."""
    with pytest.raises(ValueError, match=r"expected a module with weights to train, got none; .* args=\(x,\)"):
        FlowModule(ELBO(model, AutoNormal(model)))

    class WithScale(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x):
            mean = pyro.sample("mean", dist.Normal(0.0 * self.scale, 5.0))
            with pyro.plate("data", ROWS, subsample_size=len(x)):
                pyro.sample("x", dist.Normal(mean, self.scale.exp()), obs=x)

    whole = WithScale()
    module = FlowModule(ELBO(whole, AutoNormal(whole)), settings=FitSettings(steps=2))
    options = {**QUIET, "enable_checkpointing": False, "max_steps": 2}
    with pytest.raises(ValueError, match="weights that an optimizer has not seen"):
        lightning.Trainer(**options).fit(module, DataLoader(TensorDataset(X), batch_size=ROWS))
