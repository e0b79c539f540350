"""The same seed gives the same curve whatever the devices, the processes and the size of a microbatch."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from medclip.training.distributed import local_device_ids
from medclip.training.loop import train
from support.ports import free_port

CLOSE = 1e-4  # of a loss of about 2: float32 sums in another order, over four steps

RUN = """
import json, sys
from medclip import jax_setup
jax_setup.start()
data, out, config, shape, several = json.loads(sys.argv[1])
if several:
    from medclip.training.distributed import start_distributed
    start_distributed()
from pathlib import Path
import jax
from medclip.model.config import PRESETS, Preset
from medclip.training.loop import train
from medclip.training.config import TrainConfig
PRESETS["test"] = Preset(*shape)
config["freeze"] = tuple(config["freeze"])
train(Path(data), Path(out), TrainConfig(**config))
print(jax.device_count())
"""


def curve(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines for key in ("loss", "validation_loss", "gradient_norm") if key in line]


def start(data, out, config, devices, several=False, **environment):
    """A process of its own with that many emulated devices."""
    from medclip.model.config import PRESETS

    arguments = json.dumps([str(data), str(out), dataclasses.asdict(config), PRESETS["test"], several])
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, arguments], env=os.environ | flags | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_microbatches_give_the_same_curve(run, data, train_config, tmp_path):
    train(data, tmp_path / "run", dataclasses.replace(train_config, micro_batch_size=4))
    assert curve(tmp_path / "run") == pytest.approx(curve(run), abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "settings"), [(8, {}), (2, {"fsdp": True, "micro_batch_size": 4})])
def test_devices_give_the_same_curve(run, data, train_config, tmp_path, devices, settings):
    process = start(data, tmp_path / "run", dataclasses.replace(train_config, **settings), devices)
    output, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert int(output.split()[-1]) == devices
    assert curve(tmp_path / "run") == pytest.approx(curve(run), abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"fsdp": True}], ids=["replicated", "fsdp"])
def test_two_processes_give_the_same_curve(run, data, train_config, tmp_path, settings):
    at = f"127.0.0.1:{free_port()}"
    processes = [
        start(data, tmp_path / "run", dataclasses.replace(train_config, **settings), 2, True,
              JAX_COORDINATOR_ADDRESS=at, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(i))
        for i in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {int(output.split()[-1]) for output, _ in outputs} == {4}
    assert curve(tmp_path / "run") == pytest.approx(curve(run), abs=CLOSE)


SLURM = {"SLURM_JOB_ID": "4242", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(("given", "visible"), [({}, "all"), ({"JAX_LOCAL_DEVICE_IDS": "2,3"}, "2,3")])
def test_the_only_process_of_a_host_has_all_its_gpus(given, visible):
    """JAX takes one process a GPU for granted, and would leave the others of the host idle without a word."""
    code = "from medclip.training.distributed import *; start_distributed(); "
    code += "print(jax.config.values['jax_cuda_visible_devices'])"
    alone = {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1", "JAX_COORDINATOR_PORT": str(free_port())}
    environment = os.environ | SLURM | alone | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [visible], done.stderr


@pytest.mark.parametrize(
    ("environ", "ids"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "4"}, []),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({}, None),
    ],
)
def test_of_several_processes_of_a_host_each_has_the_gpus_that_jax_gives_it(environ, ids):
    assert local_device_ids(environ) == ids
