// Every operation is computed by the CPU's kernel on the same memory: tensors of the device are shown to it as tensors
// of the CPU, and what it returns is taken for the device, counted and limited.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/native/transformers/attention.h>
#include <torch/library.h>

#include <unordered_set>

#include "runtime.h"

namespace simulated {
using at::Tensor;
using c10::IValue;

inline Tensor tensor_like(const Tensor& shape, c10::Storage storage, c10::DispatchKey key) {
  auto out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), shape.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(shape.sizes(), shape.strides(), shape.storage_offset());
  if (shape.is_conj()) out._set_conj(true);
  if (shape.is_neg()) out._set_neg(true);
  return out;
}

// The tensors of one call, seen from the CPU and from the device.
class Views {
 public:
  Tensor host(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    auto& storage = tensor.storage();
    auto known = std::find_if(pairs_.begin(), pairs_.end(), [&](auto& p) { return p.first.is_alias_of(storage); });
    if (known == pairs_.end()) {
      auto owner = [](void* context) { delete static_cast<c10::Storage*>(context); };
      c10::DataPtr data(storage.mutable_data_ptr().get(), new c10::Storage(storage), owner, Device(c10::kCPU));
      c10::Storage seen(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), c10::GetAllocator(c10::kCPU), true);
      known = pairs_.insert(pairs_.end(), {storage, seen});
    }
    auto out = tensor_like(tensor, known->second, c10::DispatchKey::CPU);
    seen_.emplace_back(tensor, out);
    return out;
  }
  Tensor device(const Tensor& tensor, DeviceIndex index) {
    if (!tensor.defined()) return tensor;
    for (auto& [own, cpu] : seen_)
      if (cpu.is_same(tensor)) return own;
    auto& storage = tensor.storage();
    auto known = std::find_if(pairs_.begin(), pairs_.end(), [&](auto& p) { return p.second.is_alias_of(storage); });
    if (known == pairs_.end()) {
      auto owner = [](void* context) { delete static_cast<c10::Storage*>(context); };
      c10::DataPtr held(storage.mutable_data_ptr().get(), new c10::Storage(storage), owner, Device(c10::kCPU));
      auto data = of_device(std::move(held), storage.nbytes(), index);
      c10::Storage own(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), &device_memory, true);
      known = pairs_.insert(pairs_.end(), {own, storage});
    }
    return tensor_like(tensor, known->first, c10::DispatchKey::CUDA);
  }
  // What the kernel resized is resized.
  void update() {
    for (auto& [own, cpu] : pairs_)
      if (own.nbytes() != cpu.nbytes()) {
        auto owner = [](void* context) { delete static_cast<c10::Storage*>(context); };
        c10::DataPtr held(cpu.mutable_data_ptr().get(), new c10::Storage(cpu), owner, Device(c10::kCPU));
        auto index = own.device().index();
        own.unsafeGetStorageImpl()->set_data_ptr_noswap(of_device(std::move(held), cpu.nbytes(), index));
        own.unsafeGetStorageImpl()->set_nbytes(cpu.nbytes());
      }
    for (auto& [own, cpu] : seen_)
      if (own.sizes() != cpu.sizes() || own.strides() != cpu.strides())
        own.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
  }

 private:
  std::vector<std::pair<c10::Storage, c10::Storage>> pairs_;
  std::vector<std::pair<Tensor, Tensor>> seen_;
};

inline Tensor host(const Tensor& tensor) { return Views().host(tensor); }

// Operations during which the host waits on a real device, since the shape of a result depends on values.
inline const std::unordered_set<std::string> kWaiting = {
    "aten::nonzero",    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::_unique",    "aten::bincount",      "aten::equal",    "aten::histogram"};

inline bool is_mask(const Tensor& index) {
  return index.defined() && (index.scalar_type() == at::kBool || index.scalar_type() == at::kByte);
}

// Does the host wait in indexing? A mask's true elements are counted, and indices of the host are copied.
inline void look_at_indices(const std::string& name, const std::vector<std::optional<Tensor>>& indices,
                            const Tensor* values) {
  auto given = [](auto& index) { return index && index->defined(); };
  auto count = std::count_if(indices.begin(), indices.end(), given);
  for (auto& index : indices) {
    if (!given(index)) continue;
    if (index->device().is_cpu() && index->numel()) synchronise((name + " with indices of the host").c_str());
    bool fills = values && values->dim() == 0 && count == 1;  // becomes masked_fill_
    if (is_mask(*index) && !fills) synchronise((name + " with a mask").c_str());
  }
}

inline DeviceIndex common_device(const std::string& name, const IValue* arguments, size_t count) {
  std::optional<Device> seen;
  auto look = [&](const Tensor& tensor) {
    if (!tensor.defined() || (tensor.device().is_cpu() && tensor.dim() == 0)) return;
    auto device = tensor.device();
    TORCH_CHECK(!seen || *seen == device, "Expected all tensors to be on the same device, but found at least two devices, ",
                seen->str(), " and ", device.str(), "! (when checking argument in method ", name, ")");
    seen = device;
  };
  for (size_t i = 0; i < count; ++i) {
    auto& value = arguments[i];
    if (value.isTensor()) look(value.toTensor());
    else if (value.isTensorList())
      for (const Tensor& tensor : value.toTensorVector()) look(tensor);
    else if (value.isOptionalTensorList())
      for (auto& index : value.toOptionalTensorVector())
        if (index && index->defined() && index->is_cuda()) look(*index);
  }
  for (size_t i = 0; !seen && i < count; ++i)
    if (arguments[i].isDevice() && arguments[i].toDevice().is_cuda()) seen = arguments[i].toDevice();
  return seen && seen->is_cuda() && seen->has_index() ? seen->index() : current;
}

inline at::Generator cpu_generator(const at::Generator& generator) {
  return static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->cpu;
}

// Inside, the CPU's default generator draws what the device's would.
struct DrawnFrom {
  at::Generator host = at::detail::getDefaultCPUGenerator(), device;
  Tensor before;
  explicit DrawnFrom(DeviceIndex index) : device(cpu_generator(default_generator(index))), before(host.get_state()) {
    host.set_state(device.get_state());
  }
  ~DrawnFrom() {
    device.set_state(host.get_state());
    host.set_state(before);
  }
};

inline void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView below;
  const auto& schema = op.schema();
  const auto& name = schema.name();
  auto count = schema.arguments().size();
  auto* arguments = stack->data() + stack->size() - count;
  auto index = common_device(name, arguments, count);
  use(index);
  if (kWaiting.count(name)) synchronise(name.c_str());
  if (name == "aten::repeat_interleave" && arguments[count - 1].isNone()) synchronise(name.c_str());

  Views views;
  std::optional<DrawnFrom> drawn;
  bool takes_generator = false;
  for (size_t i = 0; i < count; ++i) {
    auto& value = arguments[i];
    if (value.isTensor()) {
      value = views.host(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> seen;
      for (const Tensor& tensor : value.toTensorVector()) seen.push_back(views.host(tensor));
      value = std::move(seen);
    } else if (value.isOptionalTensorList()) {
      auto indices = value.toOptionalTensorVector();
      auto* values = i + 1 < count && arguments[i + 1].isTensor() ? &arguments[i + 1].toTensor() : nullptr;
      look_at_indices(name, indices, values);
      c10::List<std::optional<Tensor>> seen;
      for (auto& tensor : indices) seen.push_back(tensor ? std::optional(views.host(*tensor)) : std::nullopt);
      value = std::move(seen);
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      value = Device(c10::kCPU);
    } else if (schema.arguments()[i].name() == "generator") {
      takes_generator = true;
      auto own = value.isNone() ? default_generator(index) : value.toGenerator();
      TORCH_CHECK(own.device().is_cuda(), "Expected a 'cuda' device type for generator but found 'cpu'");
      value = cpu_generator(own);
    }
  }
  if (!takes_generator && op.hasTag(at::Tag::nondeterministic_seeded)) drawn.emplace(index);
  op.callBoxedForDispatchKey(c10::DispatchKey::CPU, *stack);
  drawn.reset();

  views.update();
  for (auto i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = views.device(value.toTensor(), index);
    } else if (value.isTensorList()) {
      c10::List<Tensor> own;
      for (const Tensor& tensor : value.toTensorVector()) own.push_back(views.device(tensor, index));
      value = std::move(own);
    }
  }
}

inline Tensor empty(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                    std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard on(device.value_or(Device(kCuda, current)));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(sizes), &device_memory,
                                   c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype), format);
}
inline Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides, std::optional<at::ScalarType> dtype,
                            std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard on(device.value_or(Device(kCuda, current)));
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
                                           &device_memory, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                           c10::dtype_or_default(dtype));
}

// The host waits for a copy between it and a device, unless it is from or to pinned memory and need not block.
inline void look_at_copy(const Tensor& to, const Tensor& from, bool non_blocking) {
  if (to.is_cuda() == from.is_cuda() || !from.numel()) return;
  auto& of_host = to.is_cuda() ? from : to;
  if (non_blocking && pinned_memory.contains(of_host.storage().data())) return;
  std::string why = to.is_cuda() ? "a copy to the device" : "a copy to the host";
  if (non_blocking) why += ", whose memory is not pinned";
  synchronise(why.c_str());
}
inline Tensor& copy_(Tensor& self, const Tensor& from, bool non_blocking) {
  look_at_copy(self, from, non_blocking);
  Views views;
  views.host(self).copy_(views.host(from));
  return self;
}
inline Tensor copy_from(const Tensor& self, const Tensor& to, bool non_blocking) {
  look_at_copy(to, self, non_blocking);
  host(to).copy_(host(self));
  return to;
}
inline Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}
inline at::Scalar local_scalar(const Tensor& self) {
  synchronise("a value read by the host (item, bool, int, float)");
  return host(self).item();
}

inline Tensor& set_to(Tensor& self, const c10::Storage& storage, c10::IntArrayRef sizes, c10::IntArrayRef strides,
                      int64_t offset) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(storage);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return self;
}
inline Tensor& set_storage(Tensor& self, at::Storage from, c10::SymInt offset, c10::SymIntArrayRef sizes,
                           c10::SymIntArrayRef strides) {
  auto size = C10_AS_INTARRAYREF_SLOW(sizes);
  std::vector<int64_t> stride = C10_AS_INTARRAYREF_SLOW(strides).vec();
  if (stride.empty() && !size.empty()) {
    stride.assign(size.size(), 1);
    for (auto i = static_cast<int64_t>(size.size()) - 2; i >= 0; --i) stride[i] = stride[i + 1] * size[i + 1];
  }
  return set_to(self, from, size, stride, offset.expect_int());
}
inline Tensor& set_tensor(Tensor& self, const Tensor& from) {
  return set_to(self, from.storage(), from.sizes(), from.strides(), from.storage_offset());
}
inline Tensor& set_whole_storage(Tensor& self, at::Storage from) {
  return set_to(self, from, {static_cast<int64_t>(from.nbytes() / self.dtype().itemsize())}, {1}, 0);
}
inline Tensor& set_empty(Tensor& self) { return set_to(self, at::empty({0}, self.options()).storage(), {0}, {1}, 0); }

// A convolution as the CPU's: for a device, PyTorch would choose among kernels that only a real one has.
inline Tensor convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                          c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                          bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  at::AutoDispatchBelowADInplaceOrView below;
  const IValue given[] = {x, weight, bias};
  auto index = common_device("aten::convolution", given, 3);
  Views views;
  auto of_bias = bias ? std::optional(views.host(*bias)) : std::nullopt;
  auto out = at::convolution_symint(views.host(x), views.host(weight), of_bias, stride, padding, dilation, transposed,
                                    output_padding, groups);
  return views.device(out, index);
}
inline std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, at::OptionalSymIntArrayRef bias_sizes,
    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
    c10::SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> wanted) {
  at::AutoDispatchBelowADInplaceOrView below;
  Views views;
  auto [of_x, of_weight, of_bias] =
      at::convolution_backward_symint(views.host(gradient), views.host(x), views.host(weight), bias_sizes, stride,
                                      padding, dilation, transposed, output_padding, groups, wanted);
  auto index = x.device().index();
  return {views.device(of_x, index), views.device(of_weight, index), views.device(of_bias, index)};
}

// Attention in one operation, as on a device: no matrix of scores is kept. What the CPU's fused kernel does not take is
// left to the formula in several operations.
inline int64_t attention_kernel(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask,
                                double dropout, bool, std::optional<double>, bool grouped) {
  bool shapes = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && q.size(-1) == v.size(-1) && q.numel() && k.numel();
  bool types = q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() && q.is_floating_point();
  bool bias = mask && mask->defined() && mask->requires_grad();
  bool wanted = at::globalContext().userEnabledMemEfficientSDP();
  // Where heads share keys, a real device has a fused kernel for 16 bits alone.
  bool heads = !grouped || q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  bool fused = wanted && shapes && types && heads && !bias && dropout == 0;
  return static_cast<int64_t>(fused ? at::SDPBackend::efficient_attention : at::SDPBackend::math);
}
inline Tensor rows_contiguous(const Tensor& tensor) {
  return !tensor.defined() || tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}
inline std::optional<Tensor> given(Tensor mask) { return mask.defined() ? std::optional(mask) : std::nullopt; }
inline std::tuple<Tensor, Tensor, Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                                            const std::optional<Tensor>& mask, bool, double dropout,
                                                            bool causal, std::optional<double> scale) {
  at::AutoDispatchBelowADInplaceOrView below;
  Views views;
  auto seen = [&](const Tensor& tensor) { return rows_contiguous(views.host(tensor)); };
  auto bias = given(mask ? seen(*mask) : Tensor());
  auto [out, sums] =
      at::_scaled_dot_product_flash_attention_for_cpu(seen(q), seen(k), seen(v), dropout, causal, bias, scale);
  auto index = q.device().index();
  auto seed = at::empty({}, at::device(q.device()).dtype(at::kLong));
  return {views.device(out, index), views.device(sums, index), seed, seed};
}
inline std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& gradient, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const Tensor& out,
    const Tensor& sums, const Tensor&, const Tensor&, double dropout, std::array<bool, 4>, bool causal,
    std::optional<double> scale) {
  at::AutoDispatchBelowADInplaceOrView below;
  if (!gradient.defined()) return {};
  Views views;
  auto seen = [&](const Tensor& tensor) { return rows_contiguous(views.host(tensor)); };
  auto [of_q, of_k, of_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      seen(gradient), seen(q), seen(k), seen(v), seen(out), seen(sums), dropout, causal, given(seen(mask)), scale);
  auto index = q.device().index();
  return {views.device(of_q, index), views.device(of_k, index), views.device(of_v, index), Tensor()};
}
}  // namespace simulated
