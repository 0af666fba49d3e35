// What the ops ask of the runtime that calls them, be it PyTorch, ONNX Runtime
// or OpenVINO: its threads, and to be named to its profiler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace mmmamba {

class Runtime {
 public:
  explicit Runtime(int64_t threads) : threads_(threads) {}
  virtual ~Runtime() = default;

  // The threads that share the work of a call.
  int64_t threads() const { return threads_; }

  // What parallel_for() gives a thread.
  int64_t share(int64_t size, int64_t grain = 1) const {
    const int64_t most = (size + grain - 1) / grain;
    const int64_t shares = std::max<int64_t>(1, std::min(threads_, most));
    return (size + shares - 1) / shares;
  }

  // Calls work(begin, end) for equal shares of [0, size), one a thread, but
  // none smaller than the grain. Throws what one of them throws: an exception
  // must not leave a thread of a runtime, which may lose it.
  template <typename Work>
  void parallel_for(int64_t size, int64_t grain, const Work& work) const {
    if (size <= 0) return;
    const int64_t share = this->share(size, grain);
    const int64_t shares = (size + share - 1) / share;
    if (shares == 1) return work(0, size);
    std::mutex mutex;
    std::exception_ptr error;
    const auto run_share = [&](int64_t i) {
      try {
        work(i * share, std::min(size, (i + 1) * share));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        error = std::current_exception();
      }
    };
    run(shares, call<decltype(run_share)>, &run_share);
    if (error) std::rethrow_exception(error);
  }

  // Calls op(), which a profiler shows under this name.
  template <typename Op>
  void named(const char* name, const Op& op) const {
    const auto run_op = [&](int64_t) { op(); };
    record(name, call<decltype(run_op)>, &run_op);
  }

 protected:
  using Call = void (*)(const void* function, int64_t i);

  template <typename Function>
  static void call(const void* function, int64_t i) {
    (*static_cast<const Function*>(function))(i);
  }

  // Calls call(function, i), which throws nothing, for all i below count, in
  // parallel.
  virtual void run(int64_t count, Call call, const void* function) const = 0;

  virtual void record(const char*, Call call, const void* function) const {
    call(function, 0);
  }

 private:
  friend class OneThread;

  const int64_t threads_;
};

// A runtime for what runs in one of the threads of another.
class OneThread final : public Runtime {
 public:
  explicit OneThread(const Runtime& outer) : Runtime(1), outer_(outer) {}

 private:
  void run(int64_t count, Call call, const void* function) const override {
    for (int64_t i = 0; i < count; ++i) call(function, i);
  }
  void record(const char* name, Call call,
              const void* function) const override {
    outer_.record(name, call, function);
  }

  const Runtime& outer_;
};

}  // namespace mmmamba
