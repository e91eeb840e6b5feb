"""A cohort on a cluster: a worker that is killed costs what it had in work."""

import os
import signal
import threading
import time

import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.exports import read_cells
from cellvit_jax.inference import cluster
from cellvit_jax.inference.run import Options, Task, run
from tests.inference.free import tissue, write_slide
from tests.networks import save_small

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what dask leaves open when a worker dies


def test_no_scheduler_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", "1s")
    with pytest.raises(InputError, match="no dask scheduler"):
        list(cluster.outcomes([], Task(tmp_path, "m"), "tcp://127.0.0.1:9"))


@pytest.mark.slow
def test_one_of_two_workers_is_killed(tmp_path, capsys):
    save_small(tmp_path / "model")
    for i in range(4):
        write_slide(tmp_path / f"slide-{i}.tif", tissue(700, 700, seed=i))
    task = Task(tmp_path / "out", str(tmp_path / "model"), Options(export=("parquet",)))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as local:
        victim = next(iter(local.workers.values())).pid

        def kill():
            while not list((tmp_path / "out").glob("*.unfinished/cells-*")):
                time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert run([tmp_path], task, extensions=["tif"], scheduler=local.scheduler_address)
        killer.join()
    assert capsys.readouterr().out.splitlines()[-1] == "4 slides: 4 done"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"slide-{i}" for i in range(4)]
    assert all(read_cells(path).mpp for path in (tmp_path / "out").iterdir())
