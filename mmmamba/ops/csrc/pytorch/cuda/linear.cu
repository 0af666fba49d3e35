// linear() by cuBLASLt, which adds the bias and the residual and takes the ReLU
// in the pass of the product. libtorch_cuda, which is linked, brings it.
#include <cublasLt.h>

#include <algorithm>

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

// A row-major matrix, which is a transposed one to cuBLAS. PyTorch may give a
// single row any stride.
Layout layout_of(const Tensor& t, cudaDataType_t type) {
  return Layout([&](auto* handle) {
    return cublasLtMatrixLayoutCreate(handle, type, t.size(1), t.size(0),
                                      std::max(t.stride(0), t.size(1)));
  });
}

// The alignment that a kernel may count on.
uint32_t alignment(const Tensor& t) {
  uint32_t bytes = 256;
  while (reinterpret_cast<uintptr_t>(t.data_ptr()) % bytes) bytes /= 2;
  return bytes;
}

// PyTorch's setting, as it has just been made for the handle: to ask for it by
// at::Context::allowTF32CuBLAS() is an error where the user set fp32_precision.
bool allows_tf32(cublasHandle_t handle) {
  cublasMath_t mode;
  check(cublasGetMathMode(handle, &mode));
  return mode == CUBLAS_TF32_TENSOR_OP_MATH;
}

// The operands as matrices; bias and residual are undefined if there is none.
struct Matrices {
  Tensor x, weight, bias, residual, y;
};

// False if cuBLASLt cannot.
bool in_one_pass(const Matrices& m, bool relu) {
  const auto dtype = m.y.scalar_type();
  const auto type = dtype == at::kFloat  ? CUDA_R_32F
                    : dtype == at::kHalf ? CUDA_R_16F
                                         : CUDA_R_16BF;
  const auto handle = at::cuda::getCurrentCUDABlasHandle();
  const bool tf32 = dtype == at::kFloat && allows_tf32(handle);
  Product product([&](auto* created) {
    return cublasLtMatmulDescCreate(
        created, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUDA_R_32F);
  });
  const bool biased = m.bias.defined();
  if (biased) product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, m.bias.data_ptr());
  product.set(
      CUBLASLT_MATMUL_DESC_EPILOGUE,
      biased ? (relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
             : (relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT));

  const bool added = m.residual.defined();
  const Tensor& summand = added ? m.residual : m.y;
  const auto A = layout_of(m.weight, type), B = layout_of(m.x, type),
             C = layout_of(summand, type), D = layout_of(m.y, type);
  Preference preference(cublasLtMatmulPreferenceCreate);
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  // Parts of a sum stay in float32, in which float16 does not overflow.
  preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                 CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                 alignment(m.weight));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(m.x));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                 alignment(summand));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(m.y));

  // By cuBLAS's documentation its handle is one of cuBLASLt, too.
  const auto lt = reinterpret_cast<cublasLtHandle_t>(handle);
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const auto status = cublasLtMatmulAlgoGetHeuristic(
      lt, product.get(), A.get(), B.get(), C.get(), D.get(), preference.get(),
      1, &found, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) return false;
  const Tensor workspace =
      at::empty({int64_t(found.workspaceSize)}, m.y.options().dtype(at::kByte));
  const float one = 1, beta = added ? 1 : 0;
  return cublasLtMatmul(lt, product.get(), &one, m.weight.data_ptr(), A.get(),
                        m.x.data_ptr(), B.get(), &beta, summand.data_ptr(),
                        C.get(), m.y.data_ptr(), D.get(), &found.algo,
                        workspace.data_ptr(), found.workspaceSize,
                        at::cuda::getCurrentCUDAStream()) ==
         CUBLAS_STATUS_SUCCESS;
}

// By PyTorch, which itself asks cuBLASLt for no single row or column nor,
// before CUDA 12.1, for millions of rows or for rows of 16 bits far apart.
void in_passes(Matrices m, bool relu) {
  const PlainOps plain;
  if (m.bias.defined())
    at::addmm_out(m.y, m.bias, m.x, m.weight);
  else
    at::mm_out(m.y, m.x, m.weight);
  if (relu) m.y.relu_();
  if (m.residual.defined()) m.y.add_(m.residual);
}

void linear(const Linear& in, const Tensor& result) {
  TORCH_CHECK_TYPE(!is_packed(in.weight),
                   "linear: weight is packed, which is for CPUs");
  const auto dtype = in.x.scalar_type();
  dispatch("linear", result, [&](auto) {
    Matrices m{rows_of(in.x, dtype), rows_of(in.weight, dtype),
               parameter(in.bias, dtype),
               in.residual ? rows_of(*in.residual, dtype) : Tensor(),
               result.view({-1, result.size(-1)})};
    // cuBLASLt reads a bias by 16 bytes.
    if (m.bias.defined() && alignment(m.bias) < 16) m.bias = m.bias.clone();
    // cuBLASLt would take the ReLU of the sum with the residual.
    const bool ordered = !(in.relu && in.residual);
    if (!ordered || !in_one_pass(m, in.relu)) in_passes(m, in.relu);
  });
}

MMMAMBA_INFERENCE_OP_ON(CUDA, linear, Linear)

}  // namespace
}  // namespace mmmamba::cuda
