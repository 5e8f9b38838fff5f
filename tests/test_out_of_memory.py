"""One message for every stage."""

import pytest
import torch
from safetensors import SafetensorError

from hv15.errors import USER_ERROR
from hv15.out_of_memory import OutOfMemory, is_out_of_memory, memory_advice


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        SafetensorError("I/O error: Cannot allocate memory (os error 12)"),
        RuntimeError("std::bad_alloc"),
    ],
)
@pytest.mark.parametrize(("stage", "words"), [("train", "training"), ("decode", "decode")])
def test_what_the_gpu_and_the_machine_say(error: Exception, stage: str, words: str):
    with pytest.raises(OutOfMemory, match=f"out of memory in {words}") as caught, memory_advice(stage):
        raise error
    assert caught.value.stage == stage
    assert "hv15 plan" in caught.value.hint
    assert "\n" not in caught.value.message


def test_what_was_said_once_is_not_said_twice():
    with pytest.raises(OutOfMemory) as caught, memory_advice("train"), memory_advice("denoise"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    assert caught.value.message.count("out of memory") == 1
    assert caught.value.stage == "denoise"


def test_other_errors_stay_what_they_are():
    error = RuntimeError("shapes differ")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="shapes differ"), memory_advice("train"):
        raise error


def test_python_without_memory_is_one_message_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from hv15 import cli
    from hv15.commands import train

    def no_room(options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(train, "train", no_room)
    assert cli.main(["train", "--config", "nowhere/config.yaml"]) == USER_ERROR
    assert "out of memory in training: none is left on this machine" in capsys.readouterr().err


def test_so_is_that_of_a_command_without_settings_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from hv15 import cli
    from hv15.commands import files

    def no_room(options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(files, "convert", no_room)
    assert cli.main(["convert", "a", "b"]) == USER_ERROR
    said = capsys.readouterr().err
    assert "error: out of memory: [Errno 12] Cannot allocate memory" in said
    assert "close other programs" in said
