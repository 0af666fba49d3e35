// The nodes of common/cpu/nodes.hpp as custom ops of ONNX Runtime, in the
// domain "mmmamba": what SessionOptions.register_custom_ops_library() loads.
#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../common/cpu/nodes.hpp"
#include "ort_api.h"

namespace mmmamba {
namespace {

// The oldest version that has KernelContext_ParallelFor, of ONNX Runtime 1.17.
constexpr uint32_t kVersion = 17;

// What a function of ONNX Runtime returned.
struct Failed {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status != nullptr) throw Failed{status};
}

// Calls body, and returns what it throws as ONNX Runtime takes it.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Failed& failed) {
    return failed.status;
  } catch (const NodeError& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

// ONNX Runtime as a call of a node sees it.
class Session final : public Runtime {
 public:
  Session(const OrtApi& api, const OrtKernelContext* context, int64_t threads)
      : Runtime(threads), api_(api), context_(context) {}

  // As many calls as there are processors wait for each other for a moment:
  // those that meet are in threads of their own.
  int64_t count_threads() const {
    using Clock = std::chrono::steady_clock;
    const int64_t most = std::max(1u, std::thread::hardware_concurrency());
    const auto end = Clock::now() + std::chrono::milliseconds(1);
    std::atomic<int64_t> met = 0;
    const auto meet = [&](int64_t) {
      if (Clock::now() >= end) return;
      for (++met; met < most && Clock::now() < end;) std::this_thread::yield();
    };
    run(most, call<decltype(meet)>, &meet);
    return met;
  }

 private:
  void run(int64_t count, Call call, const void* function) const override {
    auto run_one = [&](size_t i) { call(function, static_cast<int64_t>(i)); };
    using RunOne = decltype(run_one);
    check(api_.KernelContext_ParallelFor(
        context_,
        [](void* data, size_t i) { (*static_cast<RunOne*>(data))(i); }, count,
        0, &run_one));
  }

  const OrtApi& api_;
  const OrtKernelContext* context_;
};

// The number of threads that a session has, which ONNX Runtime tells nobody.
class Threads {
 public:
  // Those of the session that has this logger, which all of its nodes share.
  static std::shared_ptr<Threads> of(const OrtLogger* logger) {
    static std::mutex mutex;
    static std::map<const OrtLogger*, std::weak_ptr<Threads>> known;
    const std::lock_guard<std::mutex> lock(mutex);
    auto threads = known[logger].lock();
    if (!threads) known[logger] = threads = std::make_shared<Threads>();
    return threads;
  }

  // Other work may keep threads from being counted: counts in the first calls.
  int64_t count(const OrtApi& api, const OrtKernelContext* context) {
    if (calls_ < kCounts && calls_++ < kCounts) {
      const int64_t found = Session(api, context, 1).count_threads();
      int64_t most = most_;
      while (found > most && !most_.compare_exchange_weak(most, found)) {
      }
    }
    return most_;
  }

 private:
  static constexpr int kCounts = 10;
  std::atomic<int> calls_ = 0;
  std::atomic<int64_t> most_ = 1;
};

// One node of a session.
class Kernel {
 public:
  Kernel(const Node& node, const OrtApi& api, const OrtKernelInfo* info)
      : node_(node), api_(api) {
    who_ = "mmmamba." + std::string(node.name) + " '" +
           text([&](char* out, size_t* size) {
             return api.KernelInfo_GetNodeName(info, out, size);
           }) +
           "'";
    const OrtLogger* logger = nullptr;
    check(api.KernelInfo_GetLogger(info, &logger));
    threads_ = Threads::of(logger);
    attributes_.visit(
        node, [&](const char* name, auto& value) { read(info, name, value); });
  }

  OrtStatus* compute(OrtKernelContext* context) {
    return guarded(api_, [&] { try_to_compute(context); });
  }

 private:
  void try_to_compute(OrtKernelContext* context) {
    size_t count = 0;
    check(api_.KernelContext_GetInputCount(context, &count));
    Inputs inputs(node_.required.size());
    std::vector<std::vector<int64_t>> shapes(inputs.size());
    for (size_t i = 0; i < count && i < inputs.size(); ++i) {
      const OrtValue* value = nullptr;
      check(api_.KernelContext_GetInput(context, i, &value));
      if (value != nullptr) inputs[i] = array(i, value, shapes[i]);
    }
    node_.check(node_, who_, inputs, attributes_);
    const auto shape = node_.result(inputs, attributes_);
    OrtValue* result = nullptr;
    check(api_.KernelContext_GetOutput(context, 0, shape.data(), shape.size(),
                                       &result));
    node_.compute(inputs, attributes_, data(result),
                  Session(api_, context, threads_->count(api_, context)));
  }

  // Calls get() as all functions that return text are called.
  template <typename Get>
  static std::string text(const Get& get) {
    size_t size = 0;
    check(get(nullptr, &size));
    std::string text(size, '\0');
    check(get(text.data(), &size));
    text.resize(size - 1);  // without the zero at its end
    return text;
  }

  // Whether there was no error; forgets it.
  bool done(OrtStatus* status) const {
    if (status != nullptr) api_.ReleaseStatus(status);
    return status == nullptr;
  }

  bool get(const OrtKernelInfo* info, const char* name, int64_t& value) const {
    return done(api_.KernelInfoGetAttribute_int64(info, name, &value));
  }
  bool get(const OrtKernelInfo* info, const char* name, float& value) const {
    return done(api_.KernelInfoGetAttribute_float(info, name, &value));
  }
  bool get(const OrtKernelInfo* info, const char* name,
           std::string& value) const {
    size_t size = 0;
    if (!done(api_.KernelInfoGetAttribute_string(info, name, nullptr, &size)))
      return false;
    value = text([&](char* out, size_t* size) {
      return api_.KernelInfoGetAttribute_string(info, name, out, size);
    });
    return true;
  }

  // What is absent keeps its default; what has another type is an error.
  template <typename T>
  void read(const OrtKernelInfo* info, const char* name, T& value) const {
    if (get(info, name, value)) return;
    int64_t whole;
    float real;
    std::string words;
    if (get(info, name, whole) || get(info, name, real) ||
        get(info, name, words))
      throw NodeError(who_ + ": the attribute " + name + " has another type");
  }

  Array array(size_t index, const OrtValue* value,
              std::vector<int64_t>& shape) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_.GetTensorTypeAndShape(value, &info));
    auto type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t axes = 0;
    OrtStatus* status = api_.GetTensorElementType(info, &type);
    if (status == nullptr) status = api_.GetDimensionsCount(info, &axes);
    shape.resize(axes + 1);  // so that a scalar has a shape, too
    if (status == nullptr)
      status = api_.GetDimensions(info, shape.data(), axes);
    api_.ReleaseTensorTypeAndShapeInfo(info);
    check(status);
    const bool is_int8 = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && !is_int8)
      throw NodeError(who_ + ": input " + std::to_string(index) +
                      " must be float32, or a packed weight of int8");
    return {data(value), shape.data(), axes, is_int8 ? 4 : 1};
  }

  float* data(const OrtValue* value) const {
    void* data = nullptr;
    check(api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    return static_cast<float*>(data);
  }

  const Node& node_;
  const OrtApi& api_;
  std::string who_;
  Attributes attributes_;
  std::shared_ptr<Threads> threads_;
};

struct CustomOp : OrtCustomOp {
  const Node* node;
};

const Node& node_of(const OrtCustomOp* op) {
  return *static_cast<const CustomOp*>(op)->node;
}

CustomOp custom_op(const Node& node) {
  CustomOp op = {};
  op.node = &node;
  op.version = kVersion;
  op.GetName = [](const OrtCustomOp* op) { return node_of(op).name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) {
    return "CPUExecutionProvider";
  };
  op.GetInputTypeCount = [](const OrtCustomOp* op) {
    return node_of(op).required.size();
  };
  // Those behind x may be packed weights; the kernel looks at their types.
  op.GetInputType = [](const OrtCustomOp*, size_t i) {
    return i == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                  : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  };
  op.GetOutputType = [](const OrtCustomOp*, size_t) {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputCharacteristic = [](const OrtCustomOp* op, size_t i) {
    return node_of(op).required[i] ? INPUT_OUTPUT_REQUIRED
                                   : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) {
    return INPUT_OUTPUT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) {
    return OrtMemTypeDefault;
  };
  op.CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi* api,
                         const OrtKernelInfo* info, void** kernel) {
    return guarded(*api,
                   [&] { *kernel = new Kernel(node_of(op), *api, info); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return static_cast<Kernel*>(kernel)->compute(context);
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

// The domain of all sessions of the process, which may outlive any other code.
OrtCustomOpDomain* domain(const OrtApi& api) {
  static OrtCustomOpDomain* const shared = [&] {
    auto* ops = new std::vector<CustomOp>;
    for (const Node& node : nodes()) ops->push_back(custom_op(node));
    OrtCustomOpDomain* domain = nullptr;
    check(api.CreateCustomOpDomain("mmmamba", &domain));
    for (const CustomOp& op : *ops) check(api.CustomOpDomain_Add(domain, &op));
    return domain;
  }();
  return shared;
}

}  // namespace
}  // namespace mmmamba

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace mmmamba;
  const OrtApi* api = base->GetApi(kVersion);
  if (api == nullptr)
    return base->GetApi(1)->CreateStatus(
        ORT_FAIL, "the custom ops of mmmamba need onnxruntime 1.17 or later");
  return guarded(*api,
                 [&] { check(api->AddCustomOpDomain(options, domain(*api))); });
}
