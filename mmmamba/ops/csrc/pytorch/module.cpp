// The (empty) Python module whose import registers the ops.
#include <Python.h>
#include <torch/version.h>

// Read from the file, without loading it, by mmmamba/ops/backend.py.
extern "C" __attribute__((visibility("default"), used))
const char mmmamba_torch_version[] = "mmmamba built for torch " TORCH_VERSION;

PyMODINIT_FUNC PyInit__ext() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_ext"};
  return PyModule_Create(&definition);
}
