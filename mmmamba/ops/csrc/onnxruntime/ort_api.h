// The part of ONNX Runtime's C interface that the ops use. Its own header comes
// with its source and its binary releases, but with no Python package; where
// there is one, it serves. The functions and the fields that are not in use
// have no name here: their order never changes, it is a binary interface.
#pragma once

#include <cstddef>
#include <cstdint>

#if __has_include("onnxruntime_c_api.h")
#include "onnxruntime_c_api.h"
#else

struct OrtCustomOp;
struct OrtCustomOpDomain;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtLogger;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

enum OrtErrorCode { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };

enum ONNXTensorElementDataType {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
};

enum OrtMemType { OrtMemTypeDefault = 0 };

enum OrtCustomOpInputOutputCharacteristic {
  INPUT_OUTPUT_REQUIRED = 0,
  INPUT_OUTPUT_OPTIONAL = 1
};

struct OrtApi {
  OrtStatus* (*CreateStatus)(OrtErrorCode, const char* message);
  void* unused1[25];
  OrtStatus* (*CreateCustomOpDomain)(const char* name, OrtCustomOpDomain**);
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain*, const OrtCustomOp*);
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions*, OrtCustomOpDomain*);
  void* unused29[22];
  OrtStatus* (*GetTensorMutableData)(OrtValue*, void** data);
  void* unused52[8];
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo*,
                                     ONNXTensorElementDataType*);
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t*);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t* sizes,
                              size_t count);
  void* unused63[2];
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue*,
                                      OrtTensorTypeAndShapeInfo**);
  void* unused66[19];
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo*,
                                             const char* name, float*);
  OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo*,
                                             const char* name, int64_t*);
  OrtStatus* (*KernelInfoGetAttribute_string)(const OrtKernelInfo*,
                                              const char* name, char* text,
                                              size_t* size);
  OrtStatus* (*KernelContext_GetInputCount)(const OrtKernelContext*, size_t*);
  void* unused89[1];
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext*, size_t index,
                                       const OrtValue**);
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext*, size_t index,
                                        const int64_t* sizes, size_t count,
                                        OrtValue**);
  void* unused92[1];
  void (*ReleaseStatus)(OrtStatus*);
  void* unused94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);
  void* unused100[144];
  OrtStatus* (*KernelInfo_GetNodeName)(const OrtKernelInfo*, char* text,
                                       size_t* size);
  OrtStatus* (*KernelInfo_GetLogger)(const OrtKernelInfo*, const OrtLogger**);
  void* unused246[28];
  OrtStatus* (*KernelContext_ParallelFor)(
      const OrtKernelContext*, void (*function)(void* data, size_t i),
      size_t total, size_t batches, void* data);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void* unused1;
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void* unused8;
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(
      const OrtCustomOp*, size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(
      const OrtCustomOp*, size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  void* unused13[4];
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*,
                               const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  void* unused19[7];
};

#endif

// Where the interface of version 17 has them, for either header.
#define MMMAMBA_ORT_AT(Struct, name, position)                        \
  static_assert(offsetof(Struct, name) == (position) * sizeof(void*), \
                #name " is elsewhere")
MMMAMBA_ORT_AT(OrtApi, CreateStatus, 0);
MMMAMBA_ORT_AT(OrtApi, CreateCustomOpDomain, 26);
MMMAMBA_ORT_AT(OrtApi, CustomOpDomain_Add, 27);
MMMAMBA_ORT_AT(OrtApi, AddCustomOpDomain, 28);
MMMAMBA_ORT_AT(OrtApi, GetTensorMutableData, 51);
MMMAMBA_ORT_AT(OrtApi, GetTensorElementType, 60);
MMMAMBA_ORT_AT(OrtApi, GetDimensionsCount, 61);
MMMAMBA_ORT_AT(OrtApi, GetDimensions, 62);
MMMAMBA_ORT_AT(OrtApi, GetTensorTypeAndShape, 65);
MMMAMBA_ORT_AT(OrtApi, KernelInfoGetAttribute_float, 85);
MMMAMBA_ORT_AT(OrtApi, KernelInfoGetAttribute_int64, 86);
MMMAMBA_ORT_AT(OrtApi, KernelInfoGetAttribute_string, 87);
MMMAMBA_ORT_AT(OrtApi, KernelContext_GetInputCount, 88);
MMMAMBA_ORT_AT(OrtApi, KernelContext_GetInput, 90);
MMMAMBA_ORT_AT(OrtApi, KernelContext_GetOutput, 91);
MMMAMBA_ORT_AT(OrtApi, ReleaseStatus, 93);
MMMAMBA_ORT_AT(OrtApi, ReleaseTensorTypeAndShapeInfo, 99);
MMMAMBA_ORT_AT(OrtApi, KernelInfo_GetNodeName, 244);
MMMAMBA_ORT_AT(OrtApi, KernelInfo_GetLogger, 245);
MMMAMBA_ORT_AT(OrtApi, KernelContext_ParallelFor, 274);
MMMAMBA_ORT_AT(OrtCustomOp, CreateKernelV2, 17);
MMMAMBA_ORT_AT(OrtCustomOp, KernelComputeV2, 18);
#undef MMMAMBA_ORT_AT
