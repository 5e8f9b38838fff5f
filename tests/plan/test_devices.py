"""GPUs by the names that people and drivers use."""

import pytest

from hv15.errors import UserError
from hv15.plan.devices import DEVICES, device_of_size, find_device, recognised

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("4090", "RTX 4090"),
        ("rtx 4090", "RTX 4090"),
        ("a100-80gb", "A100 80GB"),
        ("L4", "L4"),
        ("rtx 5070", "RTX 5070"),
    ],
)
def test_names_that_people_write(name: str, found: str):
    assert find_device(name).name == found


@pytest.mark.parametrize(("name", "words"), [("a100", "several"), ("voodoo", "fits no known GPU")])
def test_names_that_say_too_little(name: str, words: str):
    with pytest.raises(UserError, match=words):
        find_device(name)


@pytest.mark.parametrize(("text", "gib"), [("16GiB", 16), ("24 GB", 24), ("11.5", 11.5), ("8g", 8), ("16384MiB", 16)])
def test_sizes(text: str, gib: float):
    assert device_of_size(text).memory == gib * GIB


def test_no_size():
    with pytest.raises(UserError, match="--memory much"):
        device_of_size("much")


def test_names_that_drivers_write():
    """The memory is what the driver says; the speed is that of the GPU in the list."""
    found = recognised("NVIDIA GeForce RTX 4090", 25_000_000_000)
    assert (found.memory, found.tflops) == (25_000_000_000, 165)
    assert recognised("NVIDIA A100-SXM4-80GB", 80 * GIB).tflops == 312
    assert recognised("NVIDIA GeForce RTX 4070 Ti SUPER", 16 * GIB).tflops == 88
    assert recognised("Voodoo 2", GIB).tflops is None


def test_the_list_has_each_gpu_once():
    assert len({device.name for device in DEVICES}) == len(DEVICES)
