"""What a GPU would do: on a fake one (`tests.fake_cuda`) wherever the tests run, and on a real one where there is one.

On the fake one nothing may stay on the CPU, and no step may wait for the device; it has no values and no backward pass.
"""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from ageflow.baselines.train import BaselineTask, own_settings
from ageflow.benchmark import Case, gemm_peak, measure
from ageflow.config import BASELINES
from ageflow.data.faces import Faces
from ageflow.evaluation.identity import DlibEmbedder, DlibResNet
from ageflow.evaluation.judges import SecondAgeJudge
from ageflow.flows.glow import Glow, GlowConfig
from ageflow.run import Workspace
from ageflow.training import distributed
from ageflow.training.classifier import ClassifierTask
from ageflow.training.distributed import Processes, as_module
from ageflow.training.glow import GlowTask
from ageflow.training.ictm import TranslatorTask
from ageflow.training.loop import _update, train
from ageflow.training.task import State
from ageflow.translation.ictm import ICTM, ICTMConfig
from tests.conftest import ROOT
from tests.fake_cuda import fake_cuda, known_on_the_host
from tests.tiny import settings_of
from tests.training.processes import distance

DECODED = {"age_classifier": "decoded", "condition": "source_aware", "cycle_weight": 1.0, "attribute_weight": 1.0}
STEPS = {
    "glow": ("train_glow", {"flip": True}),
    "glow, affine, learned": ("train_glow", {"coupling": "affine", "prior": "learned", "memory": "reversible"}),
    "ictm": ("train_ictm", {"consistency": "literal", "akd_reduction": "sum", "latent": "top"}),
    "ictm, decoded": ("train_ictm", DECODED),
    "no ictm": ("train_ictm", {"network": "no_ictm"}),
    "classifier": ("train_classifiers", {}),
    **{name: ("baselines", {"methods": [name]}) for name in BASELINES},
}


def task_of(step, runs_root, device="cuda", **values):
    """A task of the tiny run, and its settings."""
    settings, workspace = settings_of(step, runs_root, device=device, **values), Workspace(runs_root, "demo", "tiny")
    faces = Faces.open(workspace.path("faces"))
    if step == "train_glow":
        return GlowTask(settings, faces), settings
    if step == "train_classifiers":
        return ClassifierTask(settings, faces, "age", also=["gender"]), settings
    if step == "baselines":
        settings = own_settings(settings, *settings.methods)
        return BaselineTask(settings, faces, workspace.path("decoded_age")), settings
    decoded = settings.age_classifier == "decoded"
    return TranslatorTask(settings, workspace.path("decoded_age") if decoded else None), settings


def update_twice(task, settings, no_more_waiting):
    """Two updates, of which the second may not wait: the first sends what is constant."""
    state, losses = State(task, 0.9, task.device), [as_module(each, Processes()) for each in task.objectives]
    for state.iteration in (1, 2):
        values = _update(state, losses, settings, 4, Processes())
        no_more_waiting()
    assert {value.device.type for value in values.values()} == {"cuda"}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_leaves_nothing_on_the_cpu_and_does_not_wait(translators, step):
    name, values = STEPS[step]
    if "condition" in values:
        assert task_of(name, translators, "cpu", **values)[0].searched, "kept: a fake GPU has no values to search with"
    with fake_cuda() as gpu:
        task, settings = task_of(name, translators, **values)
        before = list(task.modules.parameters())
        known_on_the_host(task.modules.to(task.device))  # as `train` does; here parameters are made anew by it
        known_on_the_host(getattr(task, "glow", task.modules))
        moved = dict(zip(before, task.modules.parameters(), strict=True))
        task.objectives = [replace(each, parameters=[moved[p] for p in each.parameters]) for each in task.objectives]

        def backward():
            for parameter in task.modules.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

        gpu.backward = backward
        update_twice(task, settings, gpu.forbid_waiting)


@pytest.mark.parametrize(("memory", "precision"), [("plain", "fp32"), ("checkpoint", "bf16"), ("reversible", "fp32")])
@pytest.mark.parametrize("kinds", [("additive", "standard", "zeros"), ("affine", "learned", "ones")])
def test_networks_compute_on_their_device(memory, precision, kinds):
    shape = dict(zip(("coupling", "prior", "edges"), kinds, strict=True)) | {"memory": memory, "precision": precision}
    with fake_cuda() as gpu:
        glow = known_on_the_host(Glow(GlowConfig(image_size=16, levels=2, steps=2, hidden=8, **shape)).to("cuda"))
        translator = ICTM(ICTMConfig(couplings=2, width=8), glow.latent_shapes).to("cuda")
        translator.checks_targets = False
        images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8, device="cuda")
        target = torch.zeros(4, dtype=torch.int64, device="cuda")
        gpu.forbid_waiting()
        assert glow.bits_per_dim(images).device.type == "cuda"
        with torch.no_grad():
            z = translator.inverse(*translator(glow.encode(images), target))[0]
            assert glow.decode(z).device.type == "cuda"


def test_judges_compute_on_their_device():
    images, chips = (torch.zeros(size, dtype=torch.uint8) for size in ((2, 3, 32, 32), (2, 150, 150, 3)))
    # Without their inference_mode, in which fake tensors ask for a driver.
    features, descriptors = SecondAgeJudge.features.__wrapped__, DlibResNet.__call__.__wrapped__
    with fake_cuda(), torch.no_grad():
        assert features(SecondAgeJudge("cuda"), images).shape == (2, 512)
        assert descriptors(DlibEmbedder("cuda")._network, chips).shape == (2, 128)


# -- on a real one ---------------------------------------------------------------------------------------------------


def _train_on_one_card(rank, runs_root, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    distributed._joined = Processes(rank, 2, dist.group.WORLD)
    train(*task_of("train_glow", runs_root, iterations=4), folder / "two")


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("step", STEPS)
    def test_a_step_does_not_wait(self, translators, step):
        task, settings = task_of(STEPS[step][0], translators, **STEPS[step][1])
        task.modules.to(task.device)
        task.start()
        try:
            update_twice(task, settings, lambda: torch.cuda.set_sync_debug_mode("error"))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_stopped_training_and_two_processes_on_a_card_train_as_one_does(self, encoded, tmp_path):
        for folder, iterations in (("one", 4), ("parts", 2), ("parts", 4)):
            train(*task_of("train_glow", encoded, iterations=iterations), tmp_path / folder)
        torch.multiprocessing.spawn(_train_on_one_card, (encoded, tmp_path), nprocs=2)
        assert max(distance(tmp_path / "one", tmp_path / other) for other in ("parts", "two")) < 1e-3

    @pytest.mark.parametrize("command", ["pytest -q tests/flows --device", "ageflow.batch --preset smoke -p device"])
    def test_flows_pass_their_tests_and_all_notebooks_run(self, command, tmp_path):
        where = ["--runs-root", str(tmp_path)] if "batch" in command else []
        subprocess.run([sys.executable, "-m", *command.split(), "cuda", *where], cwd=ROOT, check=True)

    @pytest.mark.benchmark
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_share_of_the_peak(self, precision, capsys):
        glow = GlowConfig(image_size=256, levels=6, steps=32, hidden=512, memory="reversible", precision=precision)
        for batch in (16, 32, 64):
            found = measure(Case(glow=glow, batch=batch, device="cuda", only_train=True))
            with capsys.disabled():
                print(precision, batch, found, "share of the peak:", found["gflops"] / gemm_peak("cuda")[precision])
