// Memory of the simulated devices: the host's, counted for each device and limited; and pinned memory.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace simulated {
using c10::Device;
using c10::DeviceIndex;

constexpr auto kCuda = c10::DeviceType::CUDA;
constexpr int kMostDevices = 8;
constexpr int64_t kBlock = 512;  // what CUDA's caching allocator rounds sizes up to

inline int64_t from_environment(const char* name, int64_t otherwise) {
  auto* text = std::getenv(name);
  return text && *text ? std::atoll(text) : otherwise;
}

// Numbers of the devices that this process sees, as CUDA_VISIBLE_DEVICES chooses them.
inline const std::vector<int>& visible_devices() {
  static const std::vector<int> visible = [] {
    int all = std::min<int64_t>(from_environment("SIMULATED_CUDA_DEVICES", 1), kMostDevices);
    std::vector<int> found;
    auto* chosen = std::getenv("CUDA_VISIBLE_DEVICES");
    if (!chosen) {
      for (int i = 0; i < all; ++i) found.push_back(i);
      return found;
    }
    std::stringstream numbers(chosen);
    for (std::string number; std::getline(numbers, number, ',');) {
      if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos) break;
      if (std::stoi(number) >= all) break;
      found.push_back(std::stoi(number));
    }
    return found;
  }();
  return visible;
}

inline DeviceIndex device_count() { return static_cast<DeviceIndex>(visible_devices().size()); }
inline thread_local DeviceIndex current = 0;

// A process that was forked from one that used a device cannot use one.
inline std::atomic<bool> used{false}, forked{false};
inline void use(DeviceIndex device) {
  TORCH_CHECK(!forked, "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
              "you must use the 'spawn' start method");
  TORCH_CHECK(device >= 0 && device < device_count(), "CUDA error: invalid device ordinal");
  if (!used.exchange(true)) pthread_atfork(nullptr, nullptr, [] { forked = true; });
}

inline int64_t total_memory() {
  static const int64_t bytes = from_environment("SIMULATED_CUDA_BYTES", 16LL << 30);
  return bytes;
}

struct Counts {
  std::atomic<int64_t> now{0}, peak{0}, allocations{0}, failures{0};
};
inline Counts counts[kMostDevices];

inline std::string mebibytes(int64_t bytes) { return c10::str(bytes / 1048576.0, " MiB"); }

inline int64_t reserve(DeviceIndex device, size_t wanted) {
  use(device);
  auto& count = counts[device];
  auto bytes = (static_cast<int64_t>(wanted) + kBlock - 1) / kBlock * kBlock;
  auto now = count.now += bytes;
  if (now > total_memory()) {
    count.now -= bytes;
    ++count.failures;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", mebibytes(bytes), ". GPU ",
                     static_cast<int>(device), " has a total capacity of ", mebibytes(total_memory()), " of which ",
                     mebibytes(total_memory() - count.now), " is free (simulated).");
  }
  ++count.allocations;
  for (auto peak = count.peak.load(); now > peak && !count.peak.compare_exchange_weak(peak, now);) {
  }
  return bytes;
}

// Memory of a device, which another owner of host memory may stand behind.
struct Block {
  DeviceIndex device;
  int64_t bytes;
  c10::DataPtr memory;
};
inline void release(void* context) {
  auto* block = static_cast<Block*>(context);
  counts[block->device].now -= block->bytes;
  delete block;
}
inline c10::DataPtr of_device(c10::DataPtr memory, size_t bytes, DeviceIndex device) {
  auto counted = reserve(device, bytes);
  auto* data = memory.get();
  return {data, new Block{device, counted, std::move(memory)}, &release, Device(kCuda, device)};
}

struct DeviceMemory final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto counted = reserve(current, bytes);
    auto* data = bytes ? c10::alloc_cpu(bytes) : nullptr;
    auto* block = new Block{current, counted, c10::DataPtr(data, data, &c10::free_cpu, c10::kCPU)};
    return {data, block, &release, Device(kCuda, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
  bool initialized() override { return used; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex device) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* bytes : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes}) {
      (*bytes)[0].current = counts[device].now;
      (*bytes)[0].peak = counts[device].peak;
    }
    stats.num_ooms = counts[device].failures;
    return stats;
  }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex device) override { counts[device].peak = counts[device].now.load(); }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) override {
    return {total_memory() - counts[device].now, total_memory()};
  }
};
inline DeviceMemory device_memory;

// Pinned memory is the host's whose addresses are known.
struct PinnedMemory final : c10::Allocator {
  std::mutex lock;
  std::map<const char*, size_t> blocks;
  c10::DataPtr allocate(size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
  bool contains(const void* address) {
    std::lock_guard<std::mutex> hold(lock);
    auto* wanted = static_cast<const char*>(address);
    auto after = blocks.upper_bound(wanted);
    return after != blocks.begin() && (--after, wanted < after->first + after->second);
  }
};
inline PinnedMemory pinned_memory;
inline void release_pinned(void* data) {
  {
    std::lock_guard<std::mutex> hold(pinned_memory.lock);
    pinned_memory.blocks.erase(static_cast<const char*>(data));
  }
  c10::free_cpu(data);
}
inline c10::DataPtr PinnedMemory::allocate(size_t bytes) {
  auto* data = c10::alloc_cpu(std::max<size_t>(bytes, 1));
  std::lock_guard<std::mutex> hold(lock);
  blocks[static_cast<const char*>(data)] = std::max<size_t>(bytes, 1);
  return {data, data, &release_pinned, Device(c10::kCPU)};
}

// Who is told that the host would wait for a device; it answers 0 where that is allowed.
using Listener = int (*)(const char*);
inline std::atomic<Listener> listener{nullptr};
inline void synchronise(const char* why) {
  auto ask = listener.load();
  TORCH_CHECK(!ask || !ask(why), "called a synchronizing CUDA operation: ", why);
}
}  // namespace simulated
