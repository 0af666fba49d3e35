// linear() by cuBLASLt, which adds the bias and the residual and takes the ReLU
// in the pass of the product. libtorch_cuda, which is linked, brings it.
#include <cublasLt.h>

#include "inference.cuh"

namespace mmmamba::cuda {
namespace {

constexpr size_t kWorkspace = 32 << 20;  // bytes, as NVIDIA advises for Hopper

void check(cublasStatus_t status) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "linear: cuBLASLt says ",
              cublasLtGetStatusString(status));
}

// A handle of cuBLASLt with its attributes.
template <typename Handle, auto kDestroy, auto kSet>
class Described {
 public:
  template <typename Create>
  explicit Described(Create create) {
    check(create(&handle_));
  }
  Described(const Described&) = delete;
  ~Described() { kDestroy(handle_); }

  template <typename Attribute, typename Value>
  void set(Attribute attribute, Value value) {
    check(kSet(handle_, attribute, &value, sizeof(value)));
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_;
};

using Product = Described<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy,
                          cublasLtMatmulDescSetAttribute>;
using Layout = Described<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy,
                         cublasLtMatrixLayoutSetAttribute>;
using Preference =
    Described<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy,
              cublasLtMatmulPreferenceSetAttribute>;

// Rows of a (..., C) tensor, no copy if they are equally far apart.
Tensor rows_of(const Tensor& t, at::ScalarType dtype) {
  const Tensor flat = t.to(dtype).reshape({-1, t.size(-1)});
  return flat.stride(1) == 1 && flat.stride(0) >= flat.size(1)
             ? flat
             : flat.contiguous();
}

// A row-major matrix, which is a transposed one to cuBLAS.
Layout layout_of(const Tensor& t, cudaDataType_t type) {
  return Layout([&](auto* handle) {
    return cublasLtMatrixLayoutCreate(handle, type, t.size(1), t.size(0),
                                      t.stride(0));
  });
}

// The alignment that a kernel may count on.
uint32_t alignment(const Tensor& t) {
  uint32_t bytes = 256;
  while (reinterpret_cast<uintptr_t>(t.data_ptr()) % bytes) bytes /= 2;
  return bytes;
}

void linear(const Linear& in, const Tensor& result) {
  const auto dtype = in.x.scalar_type();
  TORCH_CHECK_VALUE(!(in.relu && in.residual),
                    "linear: on a GPU there may be a ReLU or a residual");
  dispatch("linear", result, [&](auto) {
    const Tensor x = rows_of(in.x, dtype), weight = rows_of(in.weight, dtype),
                 y = result.view({-1, result.size(-1)}),
                 bias = in.bias ? in.bias->to(dtype).contiguous() : Tensor(),
                 residual = in.residual ? rows_of(*in.residual, dtype) : y;
    const auto type = dtype == at::kFloat  ? CUDA_R_32F
                      : dtype == at::kHalf ? CUDA_R_16F
                                           : CUDA_R_16BF;
    const bool tf32 =
        dtype == at::kFloat && at::globalContext().allowTF32CuBLAS();
    Product product([&](auto* handle) {
      return cublasLtMatmulDescCreate(
          handle, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
          CUDA_R_32F);
    });
    if (bias.defined())
      product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.data_ptr());
    const auto epilogue =
        bias.defined()
            ? (in.relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
            : (in.relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT);
    product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);

    const auto A = layout_of(weight, type), B = layout_of(x, type),
               C = layout_of(residual, type), D = layout_of(y, type);
    Preference preference(cublasLtMatmulPreferenceCreate);
    preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                   alignment(weight));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(x));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                   alignment(residual));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(y));

    const auto handle = at::cuda::getCurrentCUDABlasLtHandle();
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle, product.get(), A.get(),
                                         B.get(), C.get(), D.get(),
                                         preference.get(), 1, &found, &count));
    TORCH_CHECK(count > 0, "linear: cuBLASLt has no algorithm for ", x.sizes(),
                " times ", weight.sizes());
    const Tensor workspace =
        at::empty({int64_t(found.workspaceSize)}, y.options().dtype(at::kByte));
    const float one = 1, beta = in.residual ? 1 : 0;
    check(cublasLtMatmul(handle, product.get(), &one, weight.data_ptr(),
                         A.get(), x.data_ptr(), B.get(), &beta,
                         residual.data_ptr(), C.get(), y.data_ptr(), D.get(),
                         &found.algo, workspace.data_ptr(), found.workspaceSize,
                         at::cuda::getCurrentCUDAStream()));
  });
}

MMMAMBA_INFERENCE_OP_ON(CUDA, linear, Linear)

}  // namespace
}  // namespace mmmamba::cuda
