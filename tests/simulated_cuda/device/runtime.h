// What PyTorch asks of a device beside its memory and its operations: which one is current, streams, events and
// random numbers. Work is done at once, so a stream is a number and an event a time.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <chrono>

#include "memory.h"

namespace simulated {
using c10::Stream;

inline thread_local std::array<c10::StreamId, kMostDevices> streams{};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Time = std::chrono::steady_clock::time_point;
  c10::DeviceType type() const override { return kCuda; }
  Device exchangeDevice(Device device) const override {
    auto before = getDevice();
    uncheckedSetDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(kCuda, current); }
  void setDevice(Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.index() >= 0) current = device.index();
  }
  Device full(Device device) const { return device.has_index() ? device : getDevice(); }
  Stream getStream(Device device) const override {
    device = full(device);
    return Stream(Stream::UNSAFE, device, streams.at(device.index()));
  }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, full(device)); }
  Stream getNewStream(Device device, int = 0) const override {
    static std::atomic<c10::StreamId> last{0};
    return Stream(Stream::UNSAFE, full(device), ++last);
  }
  Stream getStreamFromGlobalPool(Device device, bool = false) const override { return getNewStream(device); }
  Stream exchangeStream(Stream stream) const override {
    auto before = getStream(stream.device());
    streams.at(stream.device_index()) = stream.id();
    return before;
  }
  void* getStreamNativeHandle(const Stream stream) const override { return reinterpret_cast<void*>(stream.id()); }
  DeviceIndex deviceCount() const noexcept override { return device_count(); }
  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    if (!*event) *event = new Time;
    *static_cast<Time*>(*event) = std::chrono::steady_clock::now();
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override { delete static_cast<Time*>(event); }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    TORCH_CHECK(first && second, "Both events must be recorded before calculating elapsed time.");
    return std::chrono::duration<double, std::milli>(*static_cast<Time*>(second) - *static_cast<Time*>(first)).count();
  }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { synchronise("a stream's synchronize"); }
  void synchronizeEvent(void*) const override { synchronise("an event's synchronize"); }
  void synchronizeDevice(const DeviceIndex) const override { synchronise("torch.cuda.synchronize"); }
};

// Draws what a CPU generator of the same seed draws.
struct Generator final : c10::GeneratorImpl {
  at::Generator cpu = at::detail::createCPUGenerator();
  explicit Generator(DeviceIndex device)
      : GeneratorImpl(Device(kCuda, device), c10::DispatchKeySet(c10::DispatchKey::CUDA)) {}
  void set_current_seed(uint64_t seed) override { cpu.set_current_seed(seed); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "a simulated generator has no offset"); }
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return cpu.current_seed(); }
  uint64_t seed() override { return cpu.seed(); }
  void set_state(const c10::TensorImpl& state) override { cpu.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return cpu.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new Generator(device().index());
    copy->cpu = cpu.clone();
    return copy;
  }
};
inline const at::Generator& default_generator(DeviceIndex device) {
  static auto* all = [] {
    auto* made = new std::vector<at::Generator>;
    for (DeviceIndex i = 0; i < device_count(); ++i) made->push_back(at::make_generator<Generator>(i));
    return made;
  }();
  return all->at(device < 0 ? current : device);
}
inline bool hand_out_default_generators = false;

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return used; }
  DeviceIndex deviceCount() const override { return device_count(); }
  int getNumGPUs() const override { return device_count(); }
  DeviceIndex getCurrentDevice() const override { return current; }
  DeviceIndex current_device() const override { return current; }
  void setCurrentDevice(DeviceIndex device) const override { current = device; }
  DeviceIndex exchangeDevice(DeviceIndex device) const override { return std::exchange(current, device); }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return std::exchange(current, device); }
  void deviceSynchronize(DeviceIndex) const override { synchronise("torch.cuda.synchronize"); }
  const at::Generator& getDefaultGenerator(DeviceIndex device = -1) const override { return default_generator(device); }
  at::Generator getNewGenerator(DeviceIndex device = -1) const override {
    if (hand_out_default_generators) return default_generator(device);
    return at::make_generator<Generator>(device < 0 ? current : device);
  }
  Device getDeviceFromPtr(void*) const override { return Device(kCuda, current); }
  bool isPinnedPtr(const void* address) const override { return pinned_memory.contains(address); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_memory; }
};
}  // namespace simulated
