"""Kernels by what they do: names as the profiler gives them on H100, A100, 4090 and on a CPU."""

from __future__ import annotations

import pytest

from hv15.selftest.breakdown import breakdown, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>", "attention"),
        ("void flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNN", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("ampere_bf16_s16816gemm_bf16_128x256_ldg8_f2f_stages_64x3_tn", "products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128>", "products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>", "products"),
        ("void implicit_convolve_sgemm<float, float, 1024>", "products"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "elementwise"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>", "elementwise"),
        (
            "void at::native::(anonymous namespace)::GammaBetaBackwardCUDAKernelTemplate<float, float, 64>",
            "elementwise",
        ),
        ("_gated_sum_backward", "elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("Memset (Device)", "copies"),
        ("aten::addmm", "products"),
        ("aten::baddbmm_", "products"),
        ("aten::mm", "products"),
        ("aten::addcmul", "elementwise"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::copy_", "copies"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_what_is_left_of_a_step_are_gaps() -> None:
    found = breakdown([("aten::mm", 1.0), ("aten::addmm", 0.5), ("aten::add", 0.25)], 2.0)
    assert found == {"products": 1.5, "elementwise": 0.25, "gaps": 0.25}
    assert breakdown([("aten::mm", 3.0)], 2.0)["gaps"] == 0.0
