// A simulated CUDA device: registers with PyTorch what the headers define. See install.py, which loads it.
#include "operations.h"

namespace simulated {
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_", &set_empty);
  m.impl("record_stream", [](Tensor&, c10::Stream) {});
  m.impl("convolution", &convolution);
  m.impl("convolution_backward", &convolution_backward);
  m.impl("_scaled_dot_product_efficient_attention", &attention);
  m.impl("_scaled_dot_product_efficient_attention_backward", &attention_backward);
}

// The same memory as a tensor of the host, for gloo.
TORCH_LIBRARY(simulated_cuda, m) { m.def("host(Tensor tensor) -> Tensor"); }
TORCH_LIBRARY_IMPL(simulated_cuda, CUDA, m) { m.impl("host", &host); }

const bool registered = [] {
  c10::SetAllocator(kCuda, &device_memory);
  // PyTorch asks its registry for the hooks once, and may have done so before this library was loaded.
  auto& hooks = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  new (&hooks) Hooks;
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&attention_kernel);
  return true;
}();
}  // namespace simulated

extern "C" {
int simulated_device_count() { return simulated::device_count(); }
int simulated_device_number(int device) { return simulated::visible_devices().at(device); }
int simulated_current_device() { return simulated::current; }
int simulated_exchange_device(int device) {
  return device < 0 ? -1 : std::exchange(simulated::current, static_cast<simulated::DeviceIndex>(device));
}
bool simulated_forked() { return simulated::forked; }
int64_t simulated_total_memory() { return simulated::total_memory(); }
int64_t simulated_allocated(int device) { return simulated::counts[device].now; }
int64_t simulated_peak(int device) { return simulated::counts[device].peak; }
int64_t simulated_allocations(int device) { return simulated::counts[device].allocations; }
int64_t simulated_failures(int device) { return simulated::counts[device].failures; }
void simulated_reset_peak(int device) { simulated::device_memory.resetPeakStats(device); }
void simulated_listen(simulated::Listener listener) { simulated::listener = listener; }
void simulated_hand_out_default_generators(bool yes) { simulated::hand_out_default_generators = yes; }
}
