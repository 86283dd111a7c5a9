"""The device a user names, or the best there is."""

import logging

import pytest
import torch

from pipeline.devices import MOST_WORKERS, check_precision, data_workers, has_bfloat16, pick_device
from pipeline.errors import UsageError


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_falls_back_to_the_cpu_and_says_so_in_one_line(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with caplog.at_level(logging.INFO):
        assert pick_device() == torch.device("cpu")
    assert caplog.messages == ["no GPU found, computing on the CPU"]


def test_auto_takes_cuda_before_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "mps"


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:99", "meta", "cpu:0:0"])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(name):
    with pytest.raises(UsageError, match=r"is not available here; give auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_on_a_machine_without_one_is_refused():
    with pytest.raises(UsageError, match="'cuda' is not available here"):
        pick_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_cuda_is_taken_where_it_is(name):
    assert pick_device(name).type == "cuda"


class TestPrecision:
    """bfloat16 where the hardware has it: elsewhere it is converted to float32 and back, which takes longer."""

    @pytest.mark.parametrize("instructions", [False, True])
    def test_avx_512_alone_is_not_enough(self, monkeypatch, instructions):
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
        assert has_bfloat16(torch.device("cpu")) == instructions

    def test_a_device_without_it_refuses_it_and_says_what_to_do(self, monkeypatch):
        monkeypatch.setattr("pipeline.devices.has_bfloat16", lambda device: False)
        check_precision("float32", torch.device("cpu"))
        with pytest.raises(UsageError, match=r"precision bfloat16: found a device \(cpu\) .*leave the option out"):
            check_precision("bfloat16", torch.device("cpu"))

    def test_an_unknown_precision_is_refused(self):
        with pytest.raises(UsageError, match="'float8': expected float32 or bfloat16"):
            check_precision("float8", torch.device("cpu"))


class TestWhoPreparesBatches:
    """A GPU that waits for its data learns nothing; a CPU has nobody to spare."""

    def test_a_cpu_prepares_its_own(self):
        assert data_workers(torch.device("cpu")) == 0

    @pytest.mark.parametrize(
        ("processors", "processes", "workers"), [(8, 1, 8), (8, 4, 2), (2, 4, 1), (256, 1, MOST_WORKERS)]
    )
    def test_the_processes_on_a_machine_share_its_processors(self, monkeypatch, processors, processes, workers):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(processors)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert data_workers(torch.device("cuda")) == workers
